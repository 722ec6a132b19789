"""A worker service that is ready, for subjects that measure without its start."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environments import python_of
from doteval.store import Store

# Far longer than any of these evaluations takes to load.
_START_SECONDS = 60


@contextmanager
def worker_service(directory: Path, environment: Mapping[str, str], *, processes: int = 2) -> Iterator[None]:
    """Run ``doteval worker`` in a directory. Its processes are ready when the block begins.

    `environment` has the broker and the result store, as ``DOTEVAL_`` variables.
    """
    command = [python_of("doteval"), "-m", "doteval", "worker", ".", "--processes", str(processes)]
    log = directory / "worker.log"
    service = subprocess.Popen(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + _START_SECONDS
        with Store.open(environment["DOTEVAL_STORAGE"]) as store:
            while sum(worker.state == "ready" for worker in store.workers.all()) < processes:
                if service.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the worker service exited, or did not become ready:\n{log.read_text()[-2000:]}"
                    )
                time.sleep(0.05)
        yield
    finally:
        service.terminate()
        service.wait()
