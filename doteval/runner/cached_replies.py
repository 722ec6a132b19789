"""Decides whether another try of a row that has failed asks its models again, or gets the replies that it had.

It asks again if a reply may be why the row failed: otherwise a reply that no evaluation can use would fail the same row
in every try, and in every run until the cache forgets it. After a connection error, the replies before it are as good
as they were, and paid for.
"""

from __future__ import annotations

from typing import Any

from doteval.core.metering import current_meter
from doteval.core.results import ErrorClass, Result
from doteval.runner.error_classes import classify


def prepare_another_try(error: BaseException) -> None:
    """After `error`, have another try of the running row ask again or replay; drop cached replies that may be why."""
    meter = current_meter()
    if meter is None or (meter.calls is None and not meter.used_cached):
        return
    of_a_reply = _may_come_of_a_reply(error)
    if meter.used_cached and of_a_reply:
        meter.drop_cached()
    if meter.calls is not None:
        if of_a_reply:
            meter.calls.ask_again()
        else:
            meter.calls.replay_again()


def with_checked_replies(returned: Any) -> Any:
    """What an eval function has returned, after dropping the cached replies that it used if it says that it failed."""
    results = returned if isinstance(returned, list | tuple) else (returned,)
    if any(isinstance(each, Result) and each.error is not None for each in results):
        meter = current_meter()
        if meter is not None:
            meter.drop_cached()
    return returned


def _may_come_of_a_reply(error: BaseException) -> bool:
    if isinstance(error, ImportError) or type(error) is NameError:
        # A mistake in the code. Once it is mended, the replies are good as they are.
        return False
    return classify(error) is ErrorClass.EVALUATION
