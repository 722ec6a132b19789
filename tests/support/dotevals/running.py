"""Runs the files that `corpus` has written, and says what came of each.

``python running.py DIRECTORY`` runs the evaluation files of DIRECTORY/evaluations in one pytest process and those of
DIRECTORY/scripts one after the other, and writes DIRECTORY/found.json: what is wrong with each file, if anything, and
how many rows its evaluations have run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from doteval.store import Store

_EXPERIMENT = "corpus"


class _Problems:
    """A pytest plugin that notes what went wrong outside rows."""

    def __init__(self) -> None:
        self.of_file: dict[str, str] = {}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._note(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._note(report)

    def _note(self, report: Any) -> None:
        crash = getattr(report.longrepr, "reprcrash", None)
        message = crash.message if crash else str(report.longrepr).strip().splitlines()[-1]
        self.of_file.setdefault(Path(report.nodeid.partition("::")[0]).stem, message.removeprefix("E   ").strip())


def run_evaluations() -> tuple[dict[str, str], Counter[str]]:
    problems = _Problems()
    options = ["--import-mode=importlib", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    with Path("pytest.txt").open("w") as output, contextlib.redirect_stdout(output):
        pytest.main(
            [*options, "--experiment", _EXPERIMENT, "--storage", "results.db", "evaluations"], plugins=[problems]
        )
    rows: Counter[str] = Counter()
    with Store.open("results.db") as store:
        for evaluation in store.evaluations.of(store.experiments.find(_EXPERIMENT)):
            file = Path(evaluation.spec.path).stem
            for record in store.results.records(evaluation.id):
                rows[file] += 1
                if record.outcome.error is not None:
                    error = record.outcome.error
                    problems.of_file.setdefault(file, f"{error.type}: {error.message}")
    return problems.of_file, rows


def run_scripts() -> dict[str, str]:
    problems = {}
    for path in sorted(Path("scripts").glob("*.py")):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                runpy.run_path(str(path), run_name=path.stem)
        # pytest's Failed, for a fixture that is called, is no Exception.
        except BaseException as error:
            problems[path.stem] = f"{type(error).__name__}: {error}"
    return problems


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    found, rows = run_evaluations()
    Path("found.json").write_text(json.dumps({"problems": found | run_scripts(), "rows": rows}))
