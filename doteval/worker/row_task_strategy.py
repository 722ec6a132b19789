"""Checks every message for row tasks before Celery does anything with it.

Anyone who can reach the broker can send a message. One that the dispatcher would not have sent is refused: it is
rejected without redelivery, and the log says once what is wrong with it, without a word of its contents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery.worker.strategy import default

from doteval.broker.messages import RowTask

logger = logging.getLogger("doteval.worker")

# A row task has less than 1 KB, and Celery's headers are no longer.
_MOST_BYTES = 10_000
_MOST_CHARACTERS = 1_000
# What Celery would do after the task, or at another time. No row task asks for it.
_FURTHER_WORK = ("callbacks", "errbacks", "chain", "chord")
_OTHER_TIMES = ("eta", "expires", "timelimit")


def row_tasks_only(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery's strategy for messages that are row tasks. It refuses all others."""
    handle = default(task, app, consumer, **options)

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **more: Any) -> Any:
        try:
            why = _what_is_wrong(message)
        except Exception as error:  # noqa: BLE001 - whatever is in the message, it must not stop the worker
            why = f"it cannot be decoded: {type(error).__name__}"
        if why is None:
            return handle(message, body, ack, reject, callbacks, **more)
        logger.warning("a message was refused: %s", why)
        return reject(logger, consumer.connection_errors, False)

    return on_message


def _what_is_wrong(message: Any) -> str | None:
    """Why a message is no row task; None if it is one."""
    if len(message.body) > _MOST_BYTES:
        return f"its body has {len(message.body):,} bytes"
    for name, value in message.headers.items():
        if isinstance(value, str | bytes) and len(value) > _MOST_CHARACTERS:
            return "a header is too long"
        if name in _OTHER_TIMES and value not in (None, [None, None]):
            return "it asks for another time"
        if name == "group" and value is not None:
            return "it asks for more than to run rows"
    if not isinstance(message.headers.get("id"), str):
        return "it has no id"
    payload = message.payload
    if not isinstance(payload, list) or len(payload) != 3:
        return "its body is not that of a Celery task"
    arguments, keywords, further = payload
    if keywords or not isinstance(further, dict) or any(further.get(name) for name in _FURTHER_WORK):
        return "it asks for more than to run rows"
    try:
        RowTask.from_arguments(arguments)
    except ValueError as error:
        return str(error)
    return None
