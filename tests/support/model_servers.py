"""Helpers for the tests of model servers: the mock as a server, processes that use it, and a search for leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.commands import Commands

ROOT = Path(__file__).parents[2]
MOCK = [sys.executable, "-m", "doteval.mock_openai", "--port", "{port}"]


def relatives(directory: Path) -> list[int]:
    """All processes that this test started, found by a variable in their initial environment."""
    variable = f"DOTEVALTEST={directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid() and variable in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


class User:
    """A process that uses a model server; see `model_server_user`."""

    def __init__(self, directory: Path, commands: Commands, **settings: Any) -> None:
        given = {"spec": "m", "command": MOCK, "health": "/v1/models", "max_retries": 1, **settings}
        given["directory"] = str(directory)
        reads, writes = os.pipe()
        self._asks = os.fdopen(writes, "w", buffering=1)
        reads_answers, writes_answers = os.pipe()
        self._answers = os.fdopen(reads_answers)
        with os.fdopen(reads) as stdin, os.fdopen(writes_answers, "w") as stdout:
            self.process = commands.start(
                "tests.support.model_server_user",
                [json.dumps(given)],
                directory=ROOT,
                environment=os.environ,
                stdin=stdin,
                stdout=stdout,
                stderr=sys.__stderr__,
            )

    def ask(self, command: str) -> None:
        self._asks.write(f"{command}\n")

    def answer(self, seconds: float = 120) -> Any:
        ready, _, _ = select.select([self._answers], [], [], seconds)
        assert ready, "no answer"
        return json.loads(self._answers.readline())

    def __call__(self, command: str) -> Any:
        self.ask(command)
        return self.answer()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return int(self("status")[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self._asks.close()
        self.process.wait(90)


MakeUser = Callable[..., User]
