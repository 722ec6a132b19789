"""The limits that keep the repository readable: so far the number of files and their sizes."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "doteval"
CODE = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "workers").rglob("*.py")])

MOST_FILES_IN_ROOT = 8
MOST_LINES_OF_A_MODULE = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_root_of_the_package_holds_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES_IN_ROOT


def test_no_module_is_too_long() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_MODULE} == {}
