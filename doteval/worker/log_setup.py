"""Sets up the logs of a worker process: one line per event on standard error, with ids and counts only."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from celery import signals
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
        logging.getLogger("asyncio").addFilter(_without_objects)
        logging.getLogger("kombu.transport.virtual.base").addFilter(_not_given_back)
        # Celery has its warnings logged, whatever `warnings.filterwarnings` said before it started.
        logging.getLogger("py.warnings").addFilter(_not_decided)

    signals.setup_logging.connect(set_up, weak=False)
    # For messages before Celery sends `setup_logging`.
    logging.getLogger().handlers[:] = [handler(log_format)]
    if resolve(log_format) == "json":
        logging.captureWarnings(True)
    # An evaluation file's exception in a thread or a destructor is a warning of pytest.
    warnings.formatwarning = _without_exception(warnings.formatwarning)
    # Celery warns the user root about pickle, which is not accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def say_why_not(error: DotEvalError, log_format: LogFormat) -> None:
    """Print why this process cannot start, without what evaluation files have said: the store has that."""
    hint = "" if error.log_text() == str(error) else "\nThe whole reason is in the result store: doteval status NAME"
    text = plain(f"doteval worker: {error.log_text()}{hint}")
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


def _not_decided(record: logging.LogRecord) -> bool:
    """Drop what Celery 5.7 explains at length whenever a connection is lost: a setting that doteval has decided on."""
    return "worker_cancel_long_running_tasks_on_connection_loss" not in record.getMessage()


def _not_given_back(record: logging.LogRecord) -> bool:
    """Drop what kombu 5.7 says of a message that came while its process was leaving: it is on the queue again."""
    return not str(record.msg).startswith("Requeuing undeliverable message")


def _refused(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    for beginning in _QUOTING:
        if text.startswith(beginning):
            record.msg, record.args, record.exc_info = f"a message was refused: {beginning}", (), None
    return True


def _without_objects(record: logging.LogRecord) -> bool:
    """Leave out what asyncio shows of a task or callback that failed: its exception, and the values that it has.

    The exception's type and stack follow.
    """
    if record.exc_info:
        first_line = record.getMessage().partition("\n")[0]
        record.msg, record.args = re.split(r"[<(]", first_line, maxsplit=1)[0].strip(), ()
    return True


# Named, since the classes would have to be imported from pytest. Their texts quote an exception with its stack.
_WARNINGS_OF_EXCEPTIONS = ("PytestUnhandledThreadExceptionWarning", "PytestUnraisableExceptionWarning")
_TRACEBACK = "Traceback (most recent call last):\n"


def _without_exception(format_warning: Callable[..., str]) -> Callable[..., str]:
    """Format warnings of pytest about an exception without its text."""

    def formatted(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> str:
        if category.__name__ not in _WARNINGS_OF_EXCEPTIONS:
            return format_warning(message, category, *where, **more)
        what, _, stack = str(message).partition(_TRACEBACK)
        # The line after the frames, which are indented.
        last = next((line for line in stack.split("\n") if line and not line[0].isspace()), "")
        kind = last.partition(":")[0].strip()
        said = what.strip().partition("\n")[0]
        shown = f"{said}: {kind}" if kind.replace(".", "").isidentifier() else said
        return format_warning(shown, category, *where, **more)

    return formatted
