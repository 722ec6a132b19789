"""What the suite relies on to be fast, and to leave nothing out."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from doteval.supervision import fork_server
from doteval.worker import fork_server_main
from tests.support.commands import Commands
from tests.support.fork_server import FORK_SERVER_MODULE
from tests.support.marks import COLLECTED, LEFT_OUT
from tests.support.order import dealt
from tests.support.processes import is_alive
from tests.support.project import wait_until

ROOT = Path(__file__).parents[2]


def test_fork_servers_are_started_under_the_name_that_is_forked() -> None:
    """Under another name they would start from nothing, and the suite would take a third longer without failing."""
    assert fork_server._MODULE == FORK_SERVER_MODULE


def test_commands_begin_without_modules_that_must_be_imported_anew(commands: Commands, tmp_path: Path) -> None:
    """pytest imports its plugins itself; prometheus_client reads the environment; evaluations may need no client."""
    (tmp_path / "shown.py").write_text("import sys\nprint(*sys.modules)\n")
    shown = commands.run("shown", [], directory=tmp_path, environment=os.environ, timeout=180)
    modules = set(shown.stdout.split())
    assert not {"anyio", "doteval.pytest_plugin", "openai", "prometheus_client"} & modules
    assert {"doteval.store", "doteval.local.session", "sqlmodel"} <= modules


STAYS = """
import os, signal
from pathlib import Path

signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    Path("child").write_text(str(os.getpid()))
signal.pause()
"""


def test_commands_that_still_run_end_with_the_tests(tmp_path: Path) -> None:
    (tmp_path / "stays.py").write_text(STAYS)
    commands = Commands()
    try:
        with Path(os.devnull).open("w") as nothing:
            running = commands.start(
                "stays", [], directory=tmp_path, environment=os.environ, stdout=nothing, stderr=nothing
            )
        child = wait_until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text(), what="its child")
    finally:
        commands.close()
    wait_until(lambda: not is_alive(running.pid) and not is_alive(int(child)), what="their end")


def test_worker_processes_start_without_libraries_that_few_evaluations_need(commands: Commands, tmp_path: Path) -> None:
    """They take half a second, also of users."""
    imports = "".join(f"import {module}\n" for module in fork_server_main._MODULES)
    (tmp_path / "shown.py").write_text(f"import sys\n{imports}print(*sys.modules)\n")
    shown = commands.run("shown", [], directory=tmp_path, environment=os.environ, timeout=180)
    modules = set(shown.stdout.split())
    assert "doteval.worker.process" in modules
    assert not {"aiohttp", "numpy", "openai", "pandas", "scipy"} & modules


def test_every_behaviour_is_in_make_test_or_says_why_not(request: pytest.FixtureRequest) -> None:
    """`make test` has one case of each test at least, unless all of them need another server or break something."""
    unexplained = []
    for name, cases in request.config.stash[COLLECTED].items():
        marks = [{mark.name for mark in case.iter_markers()} & LEFT_OUT for case in cases]
        fixtures = [set(getattr(case, "fixturenames", ())) for case in cases]
        needs_server = all({"postgres_server", "rabbitmq_service"} & each for each in fixtures)
        is_left_out_by_kind = all({"faults", "browser"} & each for each in marks)
        reasons = [mark for mark in cases[0].iter_markers("slow") if all(mark in case.iter_markers() for case in cases)]
        if all(marks) and not (needs_server or is_left_out_by_kind or any(mark.args for mark in reasons)):
            unexplained.append(name)
    assert unexplained == []


def test_a_test_that_is_slow_says_what_comes_closest(request: pytest.FixtureRequest) -> None:
    slow = [
        (case.nodeid, mark)
        for cases in request.config.stash[COLLECTED].values()
        for case in cases
        for mark in case.iter_markers("slow")
    ]
    assert [name for name, mark in slow if [type(argument) for argument in mark.args] != [str]] == []


def test_each_process_of_xdist_begins_with_tests_that_take_long() -> None:
    def tests(path: str, count: int, name: str = "test_it") -> list[Any]:
        return [SimpleNamespace(path=ROOT / "tests" / path, name=f"{name}[{number}]") for number in range(count)]

    quick = [item for number in range(8) for item in tests(f"unit/test_{number}.py", 9)]
    long = [item for number in range(6) for item in tests(f"acceptance/test_{number}.py", 2)]
    longest = tests("faults/test_soak.py", 1, "test_every_invariant_holds")
    rabbit = [item for number in range(4) for item in tests(f"integration/test_{number}.py", 3, "test_rabbitmq")]
    order = dealt([*quick, *long, *longest, *rabbit], 4)
    assert len(order) == len({id(item) for item in order}) == 97
    # As xdist divides 97 tests.
    parts = [order[:24], order[24:48], order[48:72], order[72:]]
    assert sum(part[0] in longest for part in parts) == 1
    assert all(part[0] not in quick for part in parts)
    assert all(part[-1] in quick for part in parts)
    # Tests of a file stay together, and not every process starts a RabbitMQ.
    assert all(len({number for number, part in enumerate(parts) if item in part}) == 1 for item in order)
    assert {number for number, part in enumerate(parts) for item in part if item in rabbit} <= {0, 3}
    assert dealt(quick, 1) == quick


def test_the_makefile_leaves_out_the_same() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (left_out,) = re.findall(r"^REST := (.+)$", makefile, re.MULTILINE)
    assert set(left_out.split(" or ")) == LEFT_OUT
