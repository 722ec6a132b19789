"""The live progress line is shown only on a terminal, and cleared at the end."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys

import pytest

from doteval.core.results import Outcome, RowStatus, Score
from doteval.local.progress import ProgressLine, Screen
from tests.plugin.conftest import ALONE

SLOW = """
import time
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(60)])
def eval_slow(i):
    print("row output", i)
    time.sleep(0.01)
    if i == 10:
        raise RuntimeError
    return Score("right", i % 2 == 0, ["accuracy"])
"""


def on_terminal(pytester: pytest.Pytester, *arguments: str) -> str:
    """What pytest writes to a terminal."""
    pytester.path.joinpath("eval_it.py").write_text(SLOW)
    ours, its = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("CI", None)
    command = [sys.executable, "-m", "pytest", "eval_it.py", *ALONE, "-p", "no:cacheprovider", *arguments]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=its, stderr=its, stdin=its, env=environment)
    os.close(its)
    output = b""
    while select.select([ours], [], [], 180)[0]:
        try:
            output += os.read(ours, 65536)
        except OSError:
            # Reading fails when pytest has closed its end of the terminal.
            break
    process.wait(120)
    os.close(ours)
    return output.decode()


def test_a_terminal_shows_a_line_that_is_cleared_at_the_end(pytester: pytest.Pytester) -> None:
    output = on_terminal(pytester)
    drawn = re.findall(r"\x1bE(eval_slow: .*?)\x1b\[K", output)
    assert drawn, output
    pattern = r"eval_slow: \d+/60 rows  \d+(\.\d)? rows/s  (1 error  )?right 0\.\d{3}  \d:\d\d left"
    assert re.fullmatch(pattern, drawn[-1]), drawn
    # At most five updates a second; the last one clears the line, and pytest's own line is whole.
    took = re.search(r"1 passed in ([\d.]+)s", output)
    assert took
    assert len(drawn) <= 5 * float(took[1]) + 1
    assert re.search(r"\x1b7\x1bE\x1b\[K\x1b8[^E]*\.", output)
    assert "row output" not in output


@pytest.mark.parametrize("argument", ["-q", "-s"])
def test_quiet_and_uncaptured_runs_show_no_line(pytester: pytest.Pytester, argument: str) -> None:
    output = on_terminal(pytester, argument)
    assert "\x1bE" not in output
    assert re.search(r"eval_slow +right\.accuracy", output)


class FakeTime:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def outcome(value: object, status: RowStatus = RowStatus.DONE) -> Outcome:
    return Outcome(status, 0.0, 0.0, () if status is RowStatus.FAILED else (Score("score", value),))


def test_the_line_counts_and_is_updated_at_most_five_times_a_second() -> None:
    file, clock = io.StringIO(), FakeTime()
    line = ProgressLine(Screen(file), "eval_x", 2000, clock=clock)
    for index in range(1000):
        clock.now += 0.01
        line.row(outcome(0.5) if index % 4 else outcome(None, RowStatus.FAILED))
    assert line.text(clock.now) == "eval_x: 1,000/2,000 rows  100 rows/s  250 errors  score 0.375  0:10 left"
    assert 45 <= file.getvalue().count("eval_x") <= 51
    line.close()
    line.row(outcome(True))
    assert file.getvalue().endswith("\x1b7\x1bE\x1b[K\x1b8")


def test_labels_have_no_running_score_and_unknown_lengths_no_time_left() -> None:
    clock = FakeTime()
    line = ProgressLine(Screen(io.StringIO()), "eval_x", None, clock=clock)
    line.row(outcome("a label"))
    clock.now += 2
    assert line.text(clock.now) == "eval_x: 1 row  0.5 rows/s"


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (80, "eval_words[gpt-small\ufffd[31m]: 1,000/2,000 rows  100 rows/s  250 errors"),
        (60, "eval_words[gpt-small\ufffd[31m]: 1,000/2,000 rows  100 rows/s"),
        (40, "eval_words[gpt-small\ufffd…: 1,000/2,000 rows"),
    ],
)
def test_a_narrow_terminal_cuts_no_figure(width: int, text: str) -> None:
    file, clock = io.StringIO(), FakeTime()
    line = ProgressLine(Screen(file), "eval_words[gpt-small\x1b[31m]", 2000, clock=clock)
    for index in range(1000):
        clock.now += 0.01
        line.row(outcome(0.5) if index % 4 else outcome(None, RowStatus.FAILED))
    assert line.text(clock.now, width) == text


def test_the_line_of_a_megabyte_of_a_name_is_drawn_at_once() -> None:
    """If the name were shortened character by character, this would take hours."""
    file, clock = io.StringIO(), FakeTime()
    line = ProgressLine(Screen(file), "行" * 1_000_000, 2, clock=clock)
    line.row(outcome("a label"))
    assert line.text(clock.now, 40) == f"{'行' * 14}…: 1/2 rows"
