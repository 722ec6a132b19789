"""Pages of the documentation do what they show: their files are written, their commands run, their outputs compared."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.pages import EXAMPLES, ROOT, Page, explain, run_page

# Pages that take longer than 5 s on a quiet machine, with what `make test` has of them.
SLOW: dict[str, str] = {
    "examples/demo/README.md": "examples/pool, which has worker processes and a mock server too",
    "docs/guides/limit-cost.md": "acceptance/test_estimate.py, test_experiment_budgets.py and test_batch_mode.py",
    "docs/reading-results.md": "the tutorial, and unit/cli/test_selected_records.py and test_compare.py",
    "docs/tutorial/06-worker-processes.md": "the other steps, and acceptance/test_submit.py",
}


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


@pytest.mark.slow("the pages of examples/ themselves, and the list of them in tests/unit/test_docs.py")
def test_make_example_runs_the_commands_of_its_page_anew_each_time(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "examples/run.py", "compare"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "$ pytest examples/compare --experiment sentiment\n" in ran.stdout
        assert "Verdict: BETTER" in ran.stdout
        assert ran.stdout.splitlines()[-3] == "  export DOTEVAL_STORAGE=.doteval/examples/compare/doteval.db"
    assert (tmp_path / ".doteval/examples/compare/doteval.db").exists()
