"""Remote-control commands that a worker process answers over the broker."""

from __future__ import annotations

import os
import signal
from typing import Any

from celery.worker.control import control_command

from doteval.broker.remote_control import DRAIN
from doteval.supervision.worker_config import WorkerOptions


def connect(options: WorkerOptions) -> None:
    """Register the commands of `doteval.broker.remote_control` with Celery."""

    def drain(_state: Any) -> dict[str, str]:
        # The signal goes to the service: it would replace this process if only this one left.
        os.kill(os.getpid() if options.supervisor is None else options.supervisor, signal.SIGTERM)
        return {"ok": "leaving"}

    control_command(name=DRAIN)(drain)
