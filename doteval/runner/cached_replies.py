"""Drops cached replies of models when a row that used them fails, so that its next attempt asks the model again.

Otherwise a reply that no evaluation can use would fail the same row in every run, until the cache forgets it.
"""

from __future__ import annotations

from typing import Any

from doteval.core.metering import current_meter
from doteval.core.results import ErrorClass, Result
from doteval.runner.error_classes import classify


def drop_cached_replies(error: BaseException) -> None:
    """Drop the cached replies that the running row used, if they may be why it raised `error`."""
    meter = current_meter()
    if meter is not None and meter.used_cached and _may_come_of_a_reply(error):
        meter.drop_cached()


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
