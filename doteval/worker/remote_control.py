"""What a worker process does when it is told to over the broker."""

from __future__ import annotations

import os
import signal
from typing import Any

from celery.worker.control import control_command

from doteval.broker.remote_control import DRAIN
from doteval.supervision.worker_config import WorkerOptions


def connect(options: WorkerOptions) -> None:
    """Answer to the words of `doteval.broker.remote_control`."""

    def drain(_state: Any) -> dict[str, str]:
        # The service, or it would start another in place of this process.
        os.kill(os.getpid() if options.supervisor is None else options.supervisor, signal.SIGTERM)
        return {"ok": "leaving"}

    control_command(name=DRAIN)(drain)
