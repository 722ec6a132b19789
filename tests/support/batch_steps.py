"""Stops worker processes at a step of the protocol of batches, where a test does something to them.

The project's conftest.py is `CONFTEST`. A step that is armed stops the first process that comes to it, until the test
lets it go, or kills it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.project import Project, wait_until

CONFTEST = """
import dataclasses
import os
import time

import openai.resources.batches
import openai.resources.files

from doteval.clients import journal
from doteval.coordination.batches.openai_files import OpenAiBatches
from doteval.core.batches import BatchStatus
from doteval.store import wanted_calls
from doteval.store.provider_batches import ProviderBatches


def come_to(step):
    stopped = f"{DIRECTORY}/stopped.{os.getpid()}"
    try:
        os.rename(f"{DIRECTORY}/armed.{step}", stopped)
    except FileNotFoundError:
        return
    while os.path.exists(stopped):
        time.sleep(0.005)


def after(owner, name, step, applies=lambda returned, given: True):
    real = getattr(owner, name)

    def wrapped(*positional, **given):
        returned = real(*positional, **given)
        if applies(returned, given):
            come_to(step)
        return returned

    setattr(owner, name, wrapped)


def replies(self, state, real=OpenAiBatches.replies):
    for line in real(self, state):
        yield line
        come_to("download")


after(openai.resources.files.Files, "create", "upload")
after(openai.resources.batches.Batches, "create", "create")
after(ProviderBatches, "record", "record", lambda returned, given: "provider_id" in given)
after(OpenAiBatches, "state", "poll", lambda returned, given: returned.status is not BatchStatus.RUNNING)
OpenAiBatches.replies = replies
after(wanted_calls, "_woken", "write")
after(journal._CallNote, "replay", "replay")
OpenAiBatches.limits = dataclasses.replace(OpenAiBatches.limits, requests=REQUESTS)
# The mock server lists a batch as soon as it is made.
OpenAiBatches.__init__.__kwdefaults__["lag_seconds"] = 0.5
"""

STEPS = ("upload", "create", "record", "poll", "download", "write", "replay")
"""A file is uploaded; the provider has the batch; so has the store; it has ended; one reply was read; replies are
written, and not committed; a row has got a reply."""


class Steps:
    """Arms the steps of a project whose batches hold `requests` at most."""

    def __init__(self, project: Project, requests: int) -> None:
        self._directory = project.path / "steps"
        self._directory.mkdir()
        text = CONFTEST.replace("{DIRECTORY}", str(self._directory)).replace("REQUESTS", str(requests))
        project.write("conftest.py", text)

    @contextmanager
    def stopped_at(self, step: str, ended: Callable[[], bool]) -> Iterator[int | None]:
        """Stop the first process that comes to a step, while the block runs; yields its id, None if all `ended`."""
        (self._directory / f"armed.{step}").touch()
        wait_until(lambda: self._stopped() or ended(), seconds=240, what=f"a process at the step {step!r}")
        stopped = self._stopped()
        try:
            yield int(stopped.suffix[1:]) if stopped else None
        finally:
            if stopped is not None:
                stopped.unlink()

    def _stopped(self) -> Path | None:
        return next(self._directory.glob("stopped.*"), None)
