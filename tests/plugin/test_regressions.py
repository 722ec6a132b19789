"""Errors of the earlier doteval that are not tested elsewhere.

Fixtures torn down before the rows ran, session fixtures made anew for each evaluation, and tests below
evaluations that saw zeros: see test_scopes and test_tutorial. Duplicates from two processes: see test_manners.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sqlalchemy

from doteval import Score, foreach, run
from doteval.local import run as run_module
from doteval.local.progress import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rows", [300, 3000])
def test_progress_and_summary_read_results_once(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    @foreach("i", lambda: range(rows))
    def eval_it(i: int) -> Score:
        return Score("ok", True, ["accuracy"])

    terminal = Terminal()
    monkeypatch.setattr(run_module.sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    # Each row updates the progress line, so that a line that reads the store would show here.
    monkeypatch.setattr("doteval.local.progress._DRAW_SECONDS", 0.0)
    monkeypatch.setattr(Screen, "width", 80)
    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        results = run(eval_it, storage=str(tmp_path / "x.db"))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert results.summary()["ok"]["accuracy"] == 1.0
    assert terminal.getvalue().count("eval_it") >= rows
    reading = [each for each in statements if each.startswith("SELECT") and "FROM score" in each]
    # The reads of one page: its end, the first score of a row, all scores together, and that there is no second page.
    assert len(reading) == 4
    assert sum("group_concat" in each for each in reading) == 1
    # One transaction for several rows, at worst for each: the number does not grow with the rows before.
    assert len(statements) < 12 * rows + 100
