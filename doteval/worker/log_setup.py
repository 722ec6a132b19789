"""How a worker process logs: one line an event on standard error, ids and counts only."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from celery import signals
from celery.platforms import SecurityWarning

from doteval.core.log_format import LogFormat, handler, line, resolve
from doteval.errors import DotEvalError


def connect(log_format: LogFormat) -> None:
    """Set logging up in Celery's place, which would print the arguments of failed tasks."""

    def set_up(loglevel: int, **_: Any) -> None:
        root = logging.getLogger()
        root.handlers[:] = [handler(log_format)]
        root.setLevel(loglevel)
        # Celery would log the arguments of every message, and a traceback for one that is given back.
        logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
        logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)
        # It would quote the body of a message that is none of ours; `refused` says that there was one.
        logging.getLogger("celery.worker.consumer.consumer").addFilter(_refused)

    signals.setup_logging.connect(set_up, weak=False)
    # What is said before Celery sets logging up.
    logging.getLogger().handlers[:] = [handler(log_format)]
    if resolve(log_format) == "json":
        logging.captureWarnings(True)
    # Celery warns root of pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def say_why_not(error: DotEvalError, log_format: LogFormat) -> None:
    """Say why this process cannot begin."""
    text = f"doteval worker: {error}"
    print(line(text, level="error") if resolve(log_format) == "json" else text, file=sys.stderr, flush=True)  # noqa: T201


# The beginnings of what Celery says of messages that it will not or cannot read; what follows quotes them.
_QUOTING = (
    "Can't decode message body",
    "Received and deleted unknown message",
    "Received unregistered task",
    "Received invalid task message",
)


def _refused(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    for beginning in _QUOTING:
        if text.startswith(beginning):
            record.msg, record.args, record.exc_info = f"a message was refused: {beginning}", (), None
    return True
