"""The HTTP endpoints of a worker service: its health, and the metrics of its worker processes."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from doteval.core.private_directories import PrivateDirectory
from doteval.core.states import WorkerPhase
from doteval.monitoring.endpoint import Endpoint, HttpReply, json_reply, metrics_reply
from doteval.monitoring.process_figures import collected
from doteval.store import Store

Paths = dict[str, Callable[[], HttpReply]]


class StartFailure(Protocol):
    """A worker process that cannot start: `tries` in succession have failed, the last for `reason`."""

    @property
    def name(self) -> str: ...
    @property
    def tries(self) -> int: ...
    @property
    def reason(self) -> str: ...


class Processes(Protocol):
    """The worker processes of a service: a part of `doteval.supervision.supervisor.Supervisor`."""

    def pids(self) -> list[int]: ...
    def tokens(self) -> list[str]: ...
    def failed_starts(self) -> Sequence[StartFailure]: ...


class Health:
    """Answers whether a service is alive, and whether it is ready for row tasks."""

    def __init__(self, name: str, processes: Processes, store: Store) -> None:
        self._name = name
        self._processes = processes
        self._store = store

    def alive(self) -> HttpReply:
        """200 as long as this process answers, since it restarts worker processes itself."""
        return json_reply(200, {"service": self._name, "processes": len(self._processes.pids()), **_versions()})

    def ready(self) -> HttpReply:
        """200 if a worker process takes row tasks, else 503. `failed_starts` says why worker processes cannot start.

        One whose broker does not answer takes none: `broker_silent_seconds` says for how long.

        Their states come from the store, which must be available for work.
        """
        own = set(self._processes.tokens())
        live = [each for each in self._store.workers.live() if each.token in own]
        states = [
            {
                "name": each.info.service,
                "pid": each.info.pid,
                "state": each.state,
                "broker_silent_seconds": None if each.broker_silence is None else round(each.broker_silence, 1),
            }
            for each in live
        ]
        ready = any(each.state is WorkerPhase.READY and each.broker_silence is None for each in live)
        failed = [
            {"name": each.name, "tries": each.tries, "reason": each.reason} for each in self._processes.failed_starts()
        ]
        document = {"service": self._name, "ready": ready, "processes": states, "failed_starts": failed}
        return json_reply(200 if ready else 503, document)


@contextlib.contextmanager
def figures_directory(*, wanted: bool) -> Iterator[Path | None]:
    """A directory for worker processes to count in; None if metrics are not wanted."""
    if not wanted:
        yield None
        return
    with PrivateDirectory("figures") as directory:
        yield directory.path


@contextlib.contextmanager
def service_endpoints(
    address: str,
    health: Health,
    processes: Processes,
    *,
    health_port: int | None,
    metrics_port: int | None,
    figures: Path | None,
) -> Iterator[list[str]]:
    """Serve ``/health`` and ``/ready`` on one port and ``/metrics`` on another; on one if they are the same.

    Yields their addresses, for display. Raises UsageError: when a port is taken
    """
    by_port: dict[int, Paths] = {}
    if health_port is not None:
        by_port.setdefault(health_port, {}).update({"/health": health.alive, "/ready": health.ready})
    if metrics_port is not None and figures is not None:
        by_port.setdefault(metrics_port, {})["/metrics"] = lambda: metrics_reply(collected(figures, processes.pids()))
    with contextlib.ExitStack() as stack:
        yield [
            f"http://{address}:{stack.enter_context(Endpoint(address, port, paths)).port}{path}"
            for port, paths in by_port.items()
            for path in sorted(paths)[:1]
        ]


def _versions() -> dict[str, str]:
    return {"doteval": importlib.metadata.version("doteval"), "python": platform.python_version()}
