"""The keeper of a model server runs without doteval and without installed packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from doteval.providers.server import keeper
from doteval.providers.server.keeper.output_log import OutputLog

DIRECTORY = Path(keeper.__file__).parent


def test_it_imports_the_standard_library_and_its_own_modules_only() -> None:
    imported = set()
    for path in DIRECTORY.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    assert imported - sys.stdlib_module_names == set()


def test_it_starts_without_site_packages() -> None:
    """Its modules are imported before it reads its settings, which are missing here."""
    command = [sys.executable, "-I", "-S", str(DIRECTORY / "__main__.py"), "nowhere"]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert "JSONDecodeError" in ran.stderr


def test_the_last_lines_of_the_output_are_short_and_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = OutputLog()
    assert log.last_lines() == "; it printed nothing"
    log.write(b"".join(b"line %d\n" % number for number in range(100)) + b"\x1b[31m" + b"x" * 1000)
    lines = log.last_lines().splitlines()
    assert lines[0] == "; its last output:"
    assert len(lines) == 16
    assert lines[-2] == "  line 99"
    assert lines[-1] == f"  {'x' * 159}…"
    log.close()
    log.delete()
    assert list(tmp_path.iterdir()) == []
