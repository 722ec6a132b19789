"""``python -m docs.generate`` writes the pages of docs/reference that have changed, and names them."""

from __future__ import annotations

from docs.generate import FILES, FOLDER

for name, make in FILES.items():
    file, text = FOLDER / name, make()
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
        print(f"Wrote docs/reference/{name}")
