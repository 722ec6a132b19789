"""What every command prints: whole at any width, without control characters, also where nobody reads it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import doteval
from doteval.core.experiments import EvaluationSpec, EvaluationStatus
from doteval.core.results import Outcome, Row, RowError, RowStatus, Score
from doteval.store import NewResult, Store, WorkerInfo
from tests.support.cli import CommandLine, complete

pytestmark = pytest.mark.usefixtures("without_settings")

HOSTILE = "x \x1b[31m \x9b2J \x07 \u202egnp.exe \u2066 \u200f \x7f"
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
COMMANDS = (
    ("list",),
    ("show", "--errors"),
    ("show", "--row", "3", "--evaluation", "words"),
    ("status",),
    ("watch",),
    ("usage",),
    ("usage", "--by", "worker"),
    ("usage", "--by", "evaluation"),
)


def with_name(command: tuple[str, ...], name: str, storage: str) -> tuple[str, ...]:
    first, *options = command
    return (first, *options, "--storage", storage, *([] if first == "list" else ["--", name]))


@pytest.mark.parametrize("width", ["80", "60", "40"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_is_cut_on_a_narrow_terminal(
    doteval_: CommandLine, results: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], width: str
) -> None:
    complete(Path(results))
    monkeypatch.setenv("COLUMNS", "1000")
    wide = doteval_(*with_name(command, "alpha", results))
    monkeypatch.setenv("COLUMNS", width)
    narrow = doteval_(*with_name(command, "alpha", results))
    assert (wide.code, narrow.code) == (0, 0), wide.err
    rule = re.compile("─+")
    assert set(rule.sub("", wide.out).split()) == set(rule.sub("", narrow.out).split())
    lines = narrow.out.splitlines()
    # Names, addresses and commands may be longer than the terminal, and are whole too.
    assert max(len(line) for line in lines if "/" not in line) <= int(width)


def hostile(path: Path) -> None:
    """An experiment in which everything that a user or a model may name holds control characters."""
    with Store.open(str(path)) as store:
        experiment = store.experiments.begin(HOSTILE)
        worker = store.workers.begin(WorkerInfo(f"service {HOSTILE}", HOSTILE, 1, (HOSTILE,)))
        spec = EvaluationSpec(f"evals/eval_{HOSTILE}.py", f"eval_{HOSTILE}", ("text",))
        evaluation = store.evaluations.begin(experiment, spec)
        rows = [Row(index, f"key{index}", {f"text {HOSTILE}": HOSTILE}) for index in range(2)]
        store.rows.add(evaluation.id, rows)
        store.rows.set_total(evaluation.id, 2, complete=True, fingerprint=None)
        done = Outcome(
            RowStatus.DONE,
            1e9,
            0.5,
            (Score(f"score {HOSTILE}", HOSTILE, (f"metric {HOSTILE}",)),),
            prompt=HOSTILE,
            model_response=HOSTILE,
            metadata={HOSTILE: HOSTILE},
        )
        failed = Outcome(RowStatus.FAILED, 1e9, 0.1, error=RowError(f"Error{HOSTILE}", HOSTILE, traceback=HOSTILE))
        results = [NewResult(evaluation.id, row, each) for row, each in zip(rows, (done, failed), strict=True)]
        store.results.write(results, worker)
        load = store.loads.begin(worker, f"fixture {HOSTILE}", "", 1.5, evaluation_id=evaluation.id)
        store.loads.end(load, {HOSTILE: HOSTILE}, 0.1)
        store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED, f"reason {HOSTILE}")


def test_no_command_prints_control_characters(doteval_: CommandLine, tmp_path: Path) -> None:
    storage = str(tmp_path / "results.db")
    hostile(Path(storage))
    commands = [*COMMANDS, ("show", "--full"), ("show", "--row", "1"), ("cancel",)]
    for command in commands:
        if "words" in command:
            continue
        for options in ((), ("--json",)) if command[0] in ("list", "show", "status", "usage") else ((),):
            ran = doteval_(*with_name((*command, *options), HOSTILE, storage))
            assert ran.code == 0, ran.err
            assert UNSAFE.search(ran.out + ran.err) is None, (command, ran)
            if options:
                assert json.loads(ran.out)
    # Errors, of doteval and of the command line, and what asks and tells.
    for arguments in (
        ("show", f"no {HOSTILE}", "--storage", storage),
        ("show", HOSTILE, "--evaluation", HOSTILE + "!", "--storage", storage),
        (HOSTILE,),
        ("show", f"--{HOSTILE}"),
        ("submit", f"eval_{HOSTILE}.py", "--samples", HOSTILE),
        ("submit", f"eval_{HOSTILE}.py"),
        ("list", "--storage", f"{HOSTILE}.db"),
        ("rename", HOSTILE, f"new {HOSTILE}", "--storage", storage),
        ("delete", f"new {HOSTILE}", "--yes", "--storage", storage),
    ):
        ran = doteval_(*arguments)
        assert ran.out + ran.err
        assert UNSAFE.search(ran.out + ran.err) is None, (arguments, ran)


def test_json_keeps_the_control_characters_that_it_escapes(doteval_: CommandLine, tmp_path: Path) -> None:
    storage = str(tmp_path / "results.db")
    hostile(Path(storage))
    document = json.loads(doteval_("show", "--full", "--json", "--storage", storage, "--", HOSTILE).out)
    assert document["experiment"]["name"] == HOSTILE
    assert document["evaluations"][0]["records"][0]["model_response"] == HOSTILE


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [
        (("list",), ">&-", 0),
        (("show", "alpha", "--full"), ">&-", 0),
        (("show", "nothing"), "2>&-", 2),
        (("delete", "alpha", "--yes"), "<&- >&- 2>&-", 0),
        (("list",), ">/dev/full", 74),
        (("show", "alpha", "--full"), ">/dev/full", 74),
        (("--help",), "1</dev/null", 74),
    ],
)
def test_streams_that_cannot_be_written(results: str, arguments: tuple[str, ...], closed: str, code: int) -> None:
    command = [sys.executable, "-c", "from doteval.cli import main; main()", *arguments, "--storage", results]
    if arguments == ("--help",):
        command = command[:-2]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    shell = ["sh", "-c", f'"$@" {closed}', "sh", *command]
    ran = subprocess.run(shell, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr
    assert bool(ran.stderr) is (code == 74)
    with Store.open(results) as store:
        assert bool(store.experiments.overviews()) is (arguments[0] != "delete")


def test_a_standard_error_that_nobody_reads_leaves_the_exit_code(results: str) -> None:
    program = "import os; from doteval.cli import main; r, w = os.pipe(); os.close(r); os.dup2(w, 2); main()"
    ran = subprocess.run(
        [sys.executable, "-c", program, "show", "nothing", "--storage", results],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")


@pytest.mark.parametrize(
    ("printing", "file"),
    [(r"click\.echo\(", "cli/streams.py"), (r"\.write_line\((?!\"\"\))", "local/progress.py")],
)
def test_lines_are_printed_by_what_takes_control_characters_out(printing: str, file: str) -> None:
    package = Path(doteval.__file__).parent
    found = [path for path in package.rglob("*.py") if re.search(printing, path.read_text(encoding="utf-8"))]
    assert [path.relative_to(package).as_posix() for path in found] == [file]
