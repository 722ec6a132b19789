"""How a worker process logs: one line an event on standard error, ids and counts only."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from celery import signals
from celery.platforms import SecurityWarning

_FORMAT = "%(asctime)s %(levelname)s %(processName)s[%(process)d] %(name)s: %(message)s"


def connect() -> None:
    """Set logging up in Celery's place, which would print the arguments of failed tasks."""

    def set_up(loglevel: int, **_: Any) -> None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(loglevel)
        # Celery would log the arguments of every message, and a traceback for one that is given back.
        logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
        logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)

    signals.setup_logging.connect(set_up, weak=False)
    # Celery warns root of pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
