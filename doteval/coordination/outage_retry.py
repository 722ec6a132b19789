"""Patience: what needs the store or the broker is tried again while they are away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from doteval.errors import BrokerError, StoreError, StoreVersionError

Value = TypeVar("Value")

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


def retry_through_outage(
    action: Callable[[], Value],
    *,
    leaving: threading.Event,
    on_message: Callable[[str], None],
) -> Value:
    """Do what needs the store or the broker; if one is away, try again until it is back.

    `on_message` is called once, with what is wrong. Raises the last BrokerError or StoreError when `leaving` is
    set, and other errors at once: a schema of another version does not come right by waiting.
    """

    try:
        return action()
    except (BrokerError, StoreError) as error:
        if not _may_pass(error) or leaving.is_set():
            raise
        on_message(f"{error.message}; trying again")
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        wait=tenacity.wait_exponential_jitter(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE),
        stop=tenacity.stop_when_event_set(leaving),
        sleep=tenacity.sleep_using_event(leaving),
        reraise=True,
    )
    return retrying(action)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, BrokerError | StoreError) and not isinstance(error, StoreVersionError)
