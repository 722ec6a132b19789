"""Pages of the documentation do what they show: their files are written, their commands run, their outputs compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.pages import ROOT, Page, explain, run_page

# Pages that take longer than 5 s on a quiet machine, with what `make test` has of them.
SLOW: dict[str, str] = {}


def pages() -> list[object]:
    found = (
        Page(path)
        for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[ei]*/**/README.md")])
    )
    return [
        pytest.param(page, id=page.name, marks=[pytest.mark.slow(SLOW[page.name])] if page.name in SLOW else [])
        for page in found
        if page.is_run
    ]


@pytest.mark.parametrize("page", pages())
def test_a_page_does_what_it_shows(page: Page, tmp_path: Path, client_commands: Commands) -> None:
    """`python -m tests.support.pages --write PAGE` puts what its commands print into a page."""
    _, problems = run_page(page, tmp_path, client_commands)
    if problems:
        pytest.fail(explain(page, problems), pytrace=False)
