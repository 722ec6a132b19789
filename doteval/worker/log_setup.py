"""Sets up the logs of a worker process: one line per event on standard error, with ids and counts only."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from celery import signals
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning

from doteval.core.log_format import LogFormat, handler, line, resolve
from doteval.core.wording import plain
from doteval.errors import DotEvalError


def connect(log_format: LogFormat) -> None:
    """Set logging up in place of Celery, which would print the arguments of failed tasks."""

    def set_up(loglevel: int, **_: Any) -> None:
        root = logging.getLogger()
        root.handlers[:] = [handler(log_format)]
        root.setLevel(loglevel)
        # Celery logs the arguments of every message, and a traceback for every row task that is given back.
        logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
        logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)
        # Celery quotes the body of a message that is not a row task; `_refused` only says that there was one.
        logging.getLogger("celery.worker.consumer.consumer").addFilter(_refused)
        logging.getLogger("celery.worker.request").addFilter(_not_acknowledged)

    signals.setup_logging.connect(set_up, weak=False)
    # For messages before Celery sends `setup_logging`.
    logging.getLogger().handlers[:] = [handler(log_format)]
    if resolve(log_format) == "json":
        logging.captureWarnings(True)
    # Celery warns the user root about pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Each time that a connection is lost Celery 5.7 explains at length a setting that doteval has decided on.
    warnings.filterwarnings("ignore", message="\nIn Celery 5.1 we introduced", category=CPendingDeprecationWarning)


def say_why_not(error: DotEvalError, log_format: LogFormat) -> None:
    """Print why this process cannot start."""
    text = plain(f"doteval worker: {error}")
    print(line(text, level="error") if resolve(log_format) == "json" else text, file=sys.stderr, flush=True)  # noqa: T201


# How Celery 5.7 begins the log lines about messages that it cannot read; the rest of such a line quotes the message.
_QUOTING = (
    "Can't decode message body",
    "Received and deleted unknown message",
    "Received unregistered task",
    "Received invalid task message",
)


def _not_acknowledged(record: logging.LogRecord) -> bool:
    """Say what it means that a message could not be acknowledged. Celery 5.7 calls it critical, with a traceback."""
    if str(record.msg).startswith("Couldn't "):
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        record.msg = (
            "the broker could not be notified that a row task has ended; none of its rows is lost or runs again"
        )
        record.args = ()
    return True


def _refused(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    for beginning in _QUOTING:
        if text.startswith(beginning):
            record.msg, record.args, record.exc_info = f"a message was refused: {beginning}", (), None
    return True
