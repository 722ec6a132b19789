"""The progress display: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from doteval.cli import terminal
from doteval.cli.progress import ProgressDisplay
from doteval.core.experiments import Counts, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from tests.support.clock import Clock

EXPERIMENT = Experiment(1, "first", datetime.now(UTC))


def evaluation(number: int, counts: Counts, status: EvaluationStatus = EvaluationStatus.RUNNING) -> Evaluation:
    spec = EvaluationSpec("eval_x.py", f"eval_{number}", ("text",))
    return Evaluation(number, f"uid{number}", EXPERIMENT, spec, status, None, counts, EXPERIMENT.created_at)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    with io.StringIO() as stream:
        yield stream


@pytest.fixture
def lines(clock: Clock, written: io.StringIO) -> ProgressDisplay:
    return ProgressDisplay(terminal.console(file=written, width=160, force_terminal=False), clock=clock)


def test_lines_come_now_and_then(lines: ProgressDisplay, written: io.StringIO, clock: Clock) -> None:
    with lines:
        lines.began(EXPERIMENT, [evaluation(1, Counts(100))], 1)
        for finished in range(1, 20):
            clock.now += 1
            lines.moved([evaluation(1, Counts(100, done=finished, failed=1))])
    assert written.getvalue().splitlines() == [
        "Experiment first: 1 evaluation on 1 worker process",
        "eval_1: 0/100 rows",
        "eval_1: 11/100 rows, 1 failed, 1.1 rows/s",
    ]


def test_an_evaluation_ends_once(lines: ProgressDisplay, written: io.StringIO, clock: Clock) -> None:
    ended = evaluation(1, Counts(1200, done=1198, skipped=2), EvaluationStatus.COMPLETED)
    with lines:
        lines.began(EXPERIMENT, [evaluation(1, Counts()), evaluation(2, Counts(3))], 2)
        clock.now += 75
        lines.moved([ended, evaluation(2, Counts(3))])
        lines.moved([ended, evaluation(2, Counts(3))])
    shown = written.getvalue()
    assert "Experiment first: 2 evaluations on 2 worker processes" in shown
    assert "eval_1: 0/? rows" in shown
    assert shown.count("completed") == 1
    assert "✓ completed  eval_1: 1,200 rows, 2 skipped in 1 min 15 s" in shown


@pytest.mark.parametrize(
    ("before", "least", "after", "said"),
    [
        (Counts(100), Counts(100), Counts(100, done=96, failed=4), "100 rows, 4 failed in 3.00 s"),
        (Counts(100, done=56), Counts(100, done=56), Counts(100, done=96), "96 rows, 40 of them in 3.00 s"),
        # Failed rows that run again are of this command as well.
        (Counts(96, done=90, failed=6), Counts(96, done=90), Counts(96, done=96), "96 rows, 6 of them in 3.00 s"),
        (Counts(96, done=96), Counts(96, done=96), Counts(96, done=96), "96 rows"),
    ],
)
def test_the_time_is_given_for_the_rows_of_this_command(
    lines: ProgressDisplay, written: io.StringIO, clock: Clock, before: Counts, least: Counts, after: Counts, said: str
) -> None:
    with lines:
        lines.began(EXPERIMENT, [evaluation(1, before)], 1)
        lines.moved([evaluation(1, least)])
        clock.now += 3
        lines.moved([evaluation(1, after, EvaluationStatus.COMPLETED)])
    assert written.getvalue().splitlines()[-1] == f"✓ completed  eval_1: {said}"


def test_a_reason_is_shown(lines: ProgressDisplay, written: io.StringIO) -> None:
    failed = replace(evaluation(1, Counts(3), EvaluationStatus.FAILED), reason="no [red]model\x1b[0m")
    with lines:
        lines.moved([failed])
    assert written.getvalue().splitlines() == ["✗ failed  eval_1: 0 rows", "  no [red]model\ufffd[0m"]


def test_going_on_counts_what_is_there_and_not_as_speed(
    lines: ProgressDisplay, written: io.StringIO, clock: Clock
) -> None:
    with lines:
        lines.began(EXPERIMENT, [evaluation(1, Counts(100, done=90))], 1)
        clock.now += 10
        lines.moved([evaluation(1, Counts(100, done=95))])
    shown = written.getvalue()
    assert "Continuing: 90 rows already have a result" in shown
    assert "eval_1: 95/100 rows, 0.5 rows/s" in shown


def test_evaluations_of_one_name_are_shown_with_their_file(lines: ProgressDisplay, written: io.StringIO) -> None:
    first = evaluation(1, Counts(1))
    other = replace(evaluation(2, Counts(1)), spec=EvaluationSpec("eval_y.py", "eval_1", ("text",)))
    with lines:
        lines.moved([first, other])
    assert written.getvalue().splitlines() == ["eval_x.py::eval_1: 0/1 row", "eval_y.py::eval_1: 0/1 row"]


def screen(written: io.StringIO, height: int, width: int = 100) -> Any:
    return terminal.console(file=written, width=width, height=height, force_terminal=True, color_system=None)


def test_bars(written: io.StringIO, clock: Clock) -> None:
    with ProgressDisplay(screen(written, 30), clock=clock) as follower:
        follower.moved([evaluation(1, Counts(100, done=40, failed=2)), evaluation(2, Counts())])
        follower.moved(
            [evaluation(1, Counts(100, done=98, failed=2), EvaluationStatus.COMPLETED), evaluation(2, Counts(7))]
        )
    shown = written.getvalue()
    assert "42/100" in shown
    assert "2 failed" in shown
    assert "0/?" in shown
    assert "0/7" in shown
    assert "✓ completed  eval_1: 100 rows, 2 failed" in shown
    # Nothing is left of the bars when the display ends.
    assert "eval_2" not in shown[shown.rindex("\x1b[2K") :]


def test_no_more_bars_than_lines(written: io.StringIO, clock: Clock) -> None:
    with ProgressDisplay(screen(written, 10), clock=clock) as follower:
        follower.moved([evaluation(number, Counts(5)) for number in range(20)])
    shown = written.getvalue()
    assert "and 16 evaluations more" in shown
    assert "eval_3 " in shown
    assert "eval_4 " not in shown


def test_notes_stay(lines: ProgressDisplay, written: io.StringIO) -> None:
    with lines:
        lines.note("worker process 7 died \x1b[31m")
    assert written.getvalue() == "worker process 7 died \ufffd[31m\n"


@pytest.mark.parametrize("width", [80, 60, 40])
def test_narrow_bars_shorten_names_and_no_figure(written: io.StringIO, width: int) -> None:
    counts = Counts(1_234_567, done=222_219, failed=12_345, skipped=3)
    long = replace(evaluation(1, counts), spec=EvaluationSpec("eval_x.py", "eval_words[gpt-small-\u202e-x]" * 3, ()))
    with ProgressDisplay(screen(written, 30, width)) as display:
        display.moved([long])
        drawn = written.getvalue()
    for figure in ("eval_words[", "234,567/1,234,567", "12,345", "failed,", "3", "skipped"):
        assert figure in drawn, drawn
    assert "\u202e" not in drawn
    assert max(map(len, re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn).splitlines())) <= width


def test_one_row_is_no_rows(lines: ProgressDisplay, written: io.StringIO, clock: Clock) -> None:
    with lines:
        lines.began(EXPERIMENT, [evaluation(1, Counts(1, done=1)), evaluation(2, Counts(1))], 1)
    assert "Continuing: 1 row already has a result" in written.getvalue()
    assert "eval_2: 0/1 row\n" in written.getvalue()
