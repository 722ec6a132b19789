"""What the suite relies on to be fast, and to leave nothing out."""

from __future__ import annotations

import os
from pathlib import Path

from doteval.core.broker_url import Broker
from doteval.supervision import fork_server
from doteval.supervision.supervisor import worker_command
from doteval.supervision.worker_config import WorkerOptions
from tests.support.commands import Commands
from tests.support.fork_server import WORKER_MODULES

OPTIONS = WorkerOptions(paths=(), storage=None, broker=Broker("redis://host"))


def test_worker_processes_are_started_under_the_names_that_are_forked() -> None:
    """Under another name they would start from nothing, and the suite would take a third longer without failing."""
    worker = worker_command(OPTIONS, 1, "WARNING")[2]
    assert {worker, fork_server._MODULE} == WORKER_MODULES


def test_commands_begin_without_modules_that_must_be_imported_anew(commands: Commands, tmp_path: Path) -> None:
    """pytest rewrites the plugins doteval and anyio as it imports them; prometheus_client reads the environment."""
    (tmp_path / "shown.py").write_text("import sys\nprint(*sys.modules)\n")
    shown = commands.run("shown", [], directory=tmp_path, environment=os.environ, timeout=60)
    assert not {"anyio", "doteval", "prometheus_client"} & set(shown.stdout.split())
    assert "sqlmodel" in shown.stdout.split()
