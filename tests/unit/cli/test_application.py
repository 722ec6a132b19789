"""The command line as such: its help, its errors and exit codes, its streams, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import doteval
from doteval.cli.application import EXIT_CODES, GROUPS
from doteval.cli.options import local_fork_server
from doteval.core import exit_codes
from doteval.core.broker_url import Broker
from doteval.core.stop_signals import SIGNALS, exit_code_of
from doteval.errors import BrokerError, CodeMismatchError, DotEvalError, StoreError, UsageError
from doteval.store import Store
from tests.support.cli import CommandLine, line_with, words

pytestmark = pytest.mark.usefixtures("without_settings")

COMMANDS = [entry.name for entries in GROUPS.values() for entry in entries]


# Help


def test_help_names_every_command_in_its_group_and_every_exit_code(doteval_: CommandLine) -> None:
    ran = doteval_("--help")
    assert ran.code == 0
    for group, entries in GROUPS.items():
        assert f"{group}:" in ran.out
        for entry in entries:
            assert words(line_with(ran.out, f"  {entry.name} "))[0] == entry.name
    section = ran.out[ran.out.index("Exit codes:") :]
    for each in EXIT_CODES:
        assert each.meaning in line_with(section, f"  {each.code} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(doteval_: CommandLine, name: str) -> None:
    ran = doteval_(name, "--help")
    assert ran.code == 0
    assert f"doteval {name}" in ran.out


def test_exit_codes_of_errors_are_documented(doteval_: CommandLine) -> None:
    documented = {each.code for each in EXIT_CODES}
    pending: list[type[DotEvalError]] = [DotEvalError]
    while pending:
        error = pending.pop()
        pending += error.__subclasses__()
        assert str(error.exit_code) in documented
    assert {str(exit_code_of(number)) for number in SIGNALS} <= documented
    assert str(exit_codes.UNEXPECTED) in documented


@pytest.mark.parametrize("arguments", [["--help"], ["list"]], ids=lambda arguments: str(arguments[0]))
def test_commands_begin_without_what_they_do_not_use(results: str, arguments: list[str]) -> None:
    program = (
        "import sys; from doteval.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, *arguments]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "DOTEVAL_STORAGE": results}
    )
    loaded = set(ran.stderr.split())
    assert "click" in loaded
    heavy = {"celery", "redis", "pytest", "scipy", "numpy", "pandas", "openai", "genai_prices", "starlette"}
    heavy |= {"alembic", "jinja2", "tenacity", "psycopg", "opentelemetry"}
    if arguments == ["--help"]:
        heavy |= {"rich", "sqlalchemy", "sqlmodel", "pydantic"}
    assert sorted(loaded & heavy) == []


def test_version(doteval_: CommandLine) -> None:
    assert doteval_("--version").out == f"doteval {doteval.__version__}\n"


# Errors


def test_an_unknown_experiment_names_the_nearest(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("show", "alhpa", "--storage", results)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert "'alpha'" in ran.err
    assert "Traceback" not in ran.err


def test_a_missing_store(doteval_: CommandLine, tmp_path: Path) -> None:
    ran = doteval_("list", "--storage", str(tmp_path / "none.db"))
    assert ran.code == 2
    assert "none.db" in ran.err
    assert not (tmp_path / "none.db").exists()


def test_an_unreachable_store_hides_its_password(doteval_: CommandLine) -> None:
    ran = doteval_("list", "--storage", "postgresql://ann:hunter2@127.0.0.1:1/results")
    assert ran.code == 4
    assert "ann:***@127.0.0.1" in ran.err
    assert "hunter2" not in ran.err


def test_an_unknown_command_names_the_nearest(doteval_: CommandLine) -> None:
    ran = doteval_("shwo")
    assert ran.code == 2
    assert "'show'" in ran.err


def test_settings_are_used(doteval_: CommandLine, results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOTEVAL_STORAGE", results)
    assert "alpha" in doteval_("list").out


class Broken:
    """A command that raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def raise_error(*args: Any, **options: Any) -> None:
            raise error

        monkeypatch.setattr(Store, "open", raise_error)


@pytest.mark.parametrize(
    "error",
    [UsageError("what", remedy="do this"), BrokerError("what"), StoreError("what"), CodeMismatchError("what")],
    ids=lambda error: type(error).__name__,
)
def test_errors_exit_with_their_code(
    doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch, error: DotEvalError
) -> None:
    Broken(monkeypatch, error)
    ran = doteval_("list")
    assert (ran.code, ran.out) == (error.exit_code, "")
    more = f"More: doteval docs {error.page}\n" if error.page else ""
    assert ran.err == "Error: what\n" + (f"{error.remedy}\n" if error.remedy else "") + more


def test_an_unexpected_error_fits_on_one_screen(doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    Broken(monkeypatch, RuntimeError("surprise " * 1000))
    ran = doteval_("list")
    assert ran.code == 70
    assert "RuntimeError: surprise" in ran.err
    assert "DOTEVAL_DEBUG=1" in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err) < 24 * 80
    monkeypatch.setenv("DOTEVAL_DEBUG", "1")
    ran = doteval_("list")
    assert ran.code == 70
    assert "Traceback" in ran.err
    assert "raise_error" in ran.err


def test_debugging_shows_the_traceback_of_known_errors_too(
    doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Broken(monkeypatch, StoreError("what"))
    monkeypatch.setenv("DOTEVAL_DEBUG", "1")
    ran = doteval_("list")
    assert ran.code == 4
    assert "raise_error" in ran.err


def test_an_interrupt_is_130_and_quiet(doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    Broken(monkeypatch, KeyboardInterrupt())
    ran = doteval_("list")
    assert ran.code == 130
    assert ran.err.strip() == ""


# As a process


@pytest.mark.parametrize("options", [["list"], ["show", "alpha", "--full"], ["show", "alpha", "--json"], ["--help"]])
def test_a_closed_pipe_is_quiet(results: str, options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from doteval.cli import main; main()", *options]
    ran = subprocess.run(
        command,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "DOTEVAL_STORAGE": results},
    )
    os.close(writer)
    assert ran.returncode == 141
    assert ran.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_any_encoding(
    doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch, results: str, encoding: str
) -> None:
    with Store.open(results) as store:
        store.experiments.begin("naïve \udc80 名")
    # As Python makes it for the encoding of a terminal.
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    assert doteval_("list", "--storage", results).code == 0
    assert b"alpha" in printed.getvalue()
    printed.truncate(printed.seek(0))
    assert doteval_("list", "--json", "--storage", results).code == 0
    names = [experiment["name"] for experiment in json.loads(printed.getvalue())["experiments"]]
    assert names == ["naïve \udc80 名", "alpha"]


# submit and worker


def test_submit_refuses_workers_and_a_broker(doteval_: CommandLine) -> None:
    ran = doteval_("submit", "eval_x.py", "--broker", "redis://:hunter2@host", "--workers", "2")
    assert ran.code == 2
    assert "--workers" in ran.err
    assert "hunter2" not in ran.err


@pytest.mark.parametrize("value", ["0", "-1", "some", "1.5"])
@pytest.mark.parametrize("option", ["--workers", "--concurrency", "--rows-per-task", "--samples"])
def test_submit_refuses_numbers_below_one(doteval_: CommandLine, option: str, value: str) -> None:
    ran = doteval_("submit", "eval_x.py", option, value)
    assert ran.code == 2
    assert option in ran.err


def test_submit_of_a_missing_file(doteval_: CommandLine) -> None:
    ran = doteval_("submit", "eval_none.py", "--experiment", "first")
    assert ran.code == 2
    assert "eval_none.py" in ran.err


def test_worker_needs_a_broker(doteval_: CommandLine) -> None:
    ran = doteval_("worker", ".")
    assert ran.code == 2
    assert "--broker" in ran.err


class EarlyForkServer:
    """A fork server that was begun before the settings were read, as far as a command asks for it."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_what_was_begun_for_local_worker_processes_is_ended_where_settings_name_a_broker() -> None:
    unused, used = EarlyForkServer(), EarlyForkServer()
    assert local_fork_server(unused, Broker("redis://elsewhere"), {"--workers": None}) is None
    assert local_fork_server(used, None, {"--workers": 3}) is used
    assert (unused.closed, used.closed) == (True, False)
