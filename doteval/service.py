"""The worker service: what `doteval worker PATH` runs until it is asked to leave."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from doteval.errors import EvaluationFileError, UsageError
from doteval.queue.app import VISIBILITY_TIMEOUT
from doteval.queue.publisher import Publisher
from doteval.store import Store
from doteval.supervisor import Supervisor
from doteval.worker_options import WorkerOptions, slots_for


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """What `doteval worker` was told. None means the default; `broker` must be named."""

    paths: tuple[str, ...]
    broker: str | None
    storage: str | None = None
    queue: str = "doteval"
    processes: int | None = None
    concurrency: int | None = None
    visibility_timeout: int = VISIBILITY_TIMEOUT
    name: str = "worker"
    log_level: str = "INFO"


def serve(options: ServiceOptions, told: Callable[[str], None]) -> None:
    """Serve row tasks for the evaluation files below the paths, until SIGTERM or SIGINT.

    Then the rows in flight finish and are stored, session fixtures are torn down, and it returns.
    A worker process that dies is started again.

    Raises UsageError, EvaluationFileError, BrokerError or StoreError if it cannot begin, and
    WorkerError if worker processes had to be killed at the end.
    """
    if options.broker is None:
        raise UsageError(
            "a worker needs to know which broker to listen to",
            remedy="Name it with --broker URL, DOTEVAL_BROKER or [tool.doteval] in pyproject.toml.",
        )
    for path in options.paths:
        if not Path(path.partition("::")[0]).exists():
            raise EvaluationFileError(f"no such file or directory: {path}")
    publisher = Publisher(options.broker, options.queue)
    publisher.connect()
    publisher.close()
    store = Store.open(options.storage)
    processes = options.processes or os.cpu_count() or 1
    supervisor = Supervisor(
        WorkerOptions(
            paths=options.paths,
            storage=store.raw_url,
            broker=options.broker,
            queue=options.queue,
            concurrency=options.concurrency,
            slots=slots_for(options.concurrency),
            service=options.name,
            visibility_timeout=options.visibility_timeout,
        ),
        processes,
        store,
        told=told,
        log_level=options.log_level,
    )
    leaving = threading.Event()

    def leave(_number: int, _frame: FrameType | None) -> None:
        leaving.set()

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        supervisor.start()
        told(f"{processes} worker processes on the queue {options.queue!r}; results go to {store.url}")
        leaving.wait()
        told("leaving: rows in flight finish first")
        supervisor.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        store.close()
