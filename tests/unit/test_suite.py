"""What the suite relies on to be fast, and to leave nothing out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from doteval.supervision import fork_server
from tests.support.commands import SUBMISSION, Commands
from tests.support.fork_server import FORK_SERVER_MODULE
from tests.support.marks import COLLECTED, LEFT_OUT

ROOT = Path(__file__).parents[2]


def test_fork_servers_are_started_under_the_name_that_is_forked() -> None:
    """Under another name they would start from nothing, and the suite would take a third longer without failing."""
    assert fork_server._MODULE == FORK_SERVER_MODULE


def test_commands_begin_without_modules_that_must_be_imported_anew(commands: Commands, tmp_path: Path) -> None:
    """pytest rewrites the plugins doteval and anyio as it imports them; prometheus_client reads the environment."""
    (tmp_path / "shown.py").write_text("import sys\nprint(*sys.modules)\n")
    shown = commands.run("shown", [], directory=tmp_path, environment=os.environ, timeout=60)
    assert not {"anyio", "doteval", "prometheus_client"} & set(shown.stdout.split())
    assert "sqlmodel" in shown.stdout.split()
    imports = "import sys\n" + "".join(f"import {module}\n" for module in SUBMISSION)
    (tmp_path / "shown.py").write_text(f"{imports}print(*sys.modules)\n")
    shown = commands.run("shown", [], directory=tmp_path, environment=os.environ, timeout=60)
    assert not {"anyio", "doteval.pytest_plugin", "prometheus_client"} & set(shown.stdout.split())
    assert "doteval.store" in shown.stdout.split()


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


def test_the_makefile_leaves_out_the_same() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (left_out,) = re.findall(r"^REST := (.+)$", makefile, re.MULTILINE)
    assert set(left_out.split(" or ")) == LEFT_OUT
