"""Decides which remote-control commands a worker process accepts over the broker.

Anyone who can reach the broker can send them, and Flower has buttons for some. Those that only ask are accepted, and
those that let a process leave. All others would make it deaf to row tasks, slow or blind while it looks ready.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel, control_command, nok

from doteval.broker.remote_control import DRAIN
from doteval.supervision.worker_config import WorkerOptions

_ACCEPTED = {
    *("ping", "clock", "conf", "report", "stats", "registered", "active_queues"),
    *("active", "reserved", "scheduled", "revoked", "query_task"),
    *("shutdown", "enable_events", DRAIN),
}
_INSTEAD = {
    "revoke": "doteval cancel EXPERIMENT ends its row tasks",
    "cancel_consumer": "doteval drain lets a service leave",
    "pool_grow": "doteval worker --processes sets the number of worker processes",
    "pool_shrink": "doteval worker --processes sets the number of worker processes",
    "add_consumer": "doteval worker --queue names the queues of a service",
}


def connect(options: WorkerOptions) -> None:
    """Register the commands of `doteval.broker.remote_control` with Celery, and refuse what is not accepted."""

    def drain(_state: Any) -> dict[str, str]:
        # The signal goes to the service: it would replace this process if only this one left.
        os.kill(os.getpid() if options.supervisor is None else options.supervisor, signal.SIGTERM)
        return {"ok": "leaving"}

    control_command(name=DRAIN)(drain)
    # Some have a second name.
    accepted = {Panel.data[name] for name in _ACCEPTED}
    for name, command in Panel.data.items():
        if command not in accepted:
            Panel.data[name] = _refusal(name)


def _refusal(name: str) -> Callable[..., dict[str, Any]]:
    instead = _INSTEAD.get(name)
    why = f"doteval worker processes do not accept {name}" + (f": {instead}" if instead else "")

    def refuse(_state: Any, **_: Any) -> dict[str, Any]:
        refused: dict[str, Any] = nok(why)
        return refused

    return refuse
