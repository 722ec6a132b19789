"""Retries an action with back-off while the store or the broker is unavailable."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from doteval.errors import BrokerError, StoreError, StoreVersionError

Value = TypeVar("Value")

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0


def retry_through_outage(
    action: Callable[[], Value],
    *,
    leaving: threading.Event,
    on_message: Callable[[str], None],
    where: str = "log",
) -> Value:
    """Do what needs the store or the broker; while one of them is unavailable, try again with back-off.

    leaving: once set, the last error is raised
    on_message: called once with what is wrong, unless another thread has said so of the same outage of the store
    where: what it writes to, ``log`` or ``screen``

    Raises BrokerError or StoreError: when `leaving` is set
    Raises StoreVersionError: at once, since a schema of another version does not change by waiting
    """
    try:
        return action()
    except (BrokerError, StoreError) as error:
        if not _is_outage(error) or leaving.is_set():
            raise
        if error.say_once(where):
            on_message(f"{error.message}; trying again")
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_outage),
        wait=tenacity.wait_exponential_jitter(multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS),
        stop=tenacity.stop_when_event_set(leaving),
        sleep=tenacity.sleep_using_event(leaving),
        reraise=True,
    )
    return retrying(action)


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, BrokerError | StoreError) and not isinstance(error, StoreVersionError)
