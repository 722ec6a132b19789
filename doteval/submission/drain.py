"""`drain` asks a worker service to finish its rows in flight, give the others back, and leave."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from doteval.broker.remote_control import ask_to_drain
from doteval.core import clocks
from doteval.core.broker_url import Broker
from doteval.core.wording import counted
from doteval.errors import NotFoundError, WorkerError
from doteval.store import Store, WorkerState

_LOOK_SECONDS = 0.25
# The names that `doteval.supervision.supervisor` gives worker processes for Celery.
_NAME = re.compile(r"(?P<service>.+)-\d+@(?P<host>.+)")


def drain(store: Store, broker: Broker, queue: str, name: str, *, timeout: float) -> list[WorkerState]:
    """Drain the services of a name, and wait until they have left. Returns their worker processes.

    name: of a service (``worker``), of a service on a host (``worker@host``), or of a worker process
        (``worker-1@host``), whose whole service leaves
    timeout: seconds

    Raises NotFoundError: when no live worker process has that name
    Raises BrokerError: when the broker cannot be reached
    Raises WorkerError: when no worker process answers, or one has not left in time
    """
    live = store.workers.live()
    named = [worker for worker in live if name in names_of(worker)]
    if not named:
        known = sorted({worker.info.service for worker in live})
        raise NotFoundError(
            f"no live worker process is called {name!r}",
            remedy=f"There are {', '.join(known)}." if known else "There are no live worker processes.",
        )
    leaving = [worker for worker in live if _service(worker) in {_service(each) for each in named}]
    asked = [worker.info.service for worker in named]
    silent = sorted(set(asked) - set(ask_to_drain(broker, queue, asked)))
    if len(silent) == len(asked):
        raise WorkerError(
            f"no answer from {', '.join(silent)}",
            remedy="Check that they use the same broker, or send their service SIGTERM.",
        )
    _wait(store, leaving, timeout)
    return leaving


def names_of(worker: WorkerState) -> set[str]:
    """The names that a worker process has for `drain`."""
    found = _NAME.fullmatch(worker.info.service)
    if found is None:
        return {worker.info.service}
    return {worker.info.service, found["service"], f"{found['service']}@{found['host']}"}


def _service(worker: WorkerState) -> str:
    found = _NAME.fullmatch(worker.info.service)
    return worker.info.service if found is None else f"{found['service']}@{found['host']}"


def _wait(store: Store, leaving: Sequence[WorkerState], timeout: float) -> None:
    deadline = clocks.monotonic() + timeout
    ids = {worker.id for worker in leaving}
    while True:
        left = {worker.id for worker in store.workers.all() if worker.left_at is not None}
        if ids <= left:
            return
        if clocks.monotonic() >= deadline:
            processes = counted(len(ids), "worker process has", "worker processes have")
            raise WorkerError(
                f"{len(ids - left)} of {processes} not left within {timeout:g} s",
                remedy="They leave when their rows in flight end; `doteval status` shows them until then.",
            )
        time.sleep(_LOOK_SECONDS)
