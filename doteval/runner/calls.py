"""Calls eval functions, with one row or with a batch, and turns what they return or raise into outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from doteval.core import clocks
from doteval.core.metering import sum_by_identity
from doteval.core.results import Outcome, Result, RowError, RowStatus, Score, Usage
from doteval.core.wording import counted
from doteval.errors import InvalidResultError
from doteval.runner.error_classes import describe, is_skip, skip_reason
from doteval.runner.row_retries import (
    CallPolicy,
    Performed,
    perform,
    perform_async,
)

__all__ = [
    "CallPolicy",
    "call",
    "call_async",
    "call_batch",
    "call_batch_async",
    "failed_before_call",
    "with_teardown_errors",
    "with_usage",
]

_REMEDY = "Return Result(score, prompt=...), or the score of an evaluator."


def call(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Outcome:
    """Call a sync eval function. Raises only KeyboardInterrupt and pytest.exit, on the main thread."""
    return _outcome(perform(function, arguments, policy))


async def call_async(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Outcome:
    """Call an async eval function. Raises only CancelledError, if the task that runs it is cancelled."""
    return _outcome(await perform_async(function, arguments, policy))


def call_batch(
    function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy, rows: int
) -> list[Outcome]:
    """Call a sync eval function with lists of `rows` values. Returns an outcome for each row, in the same order.

    Each outcome has the time of the whole call; only the first has its usage, so that it counts once. If the
    call raises, or returns a list of another length, all rows fail. Raises the same as `call`.
    """
    return _outcomes(perform(function, arguments, policy), rows)


async def call_batch_async(
    function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy, rows: int
) -> list[Outcome]:
    """`call_batch` for an async eval function. Raises the same as `call_async`."""
    return _outcomes(await perform_async(function, arguments, policy), rows)


def failed_before_call(error: BaseException, where: str) -> Outcome:
    """The outcome of a row that was not called because of an error; `where` the error happened."""
    return _failed(error, Performed(clocks.now(), 0.0), prefix=f"{where}: ")


def with_teardown_errors(outcome: Outcome, errors: list[BaseException]) -> Outcome:
    """The same outcome with the errors of teardowns added. Its scores are kept."""
    if not errors:
        return outcome
    error = describe(errors[0], prefix="at the teardown of a fixture: ")
    if outcome.error is not None:
        error = replace(outcome.error, message=f"{outcome.error.message}\n{error.type} {error.message}")
    return replace(outcome, error=error)


def with_usage(outcome: Outcome, used: Sequence[Usage]) -> Outcome:
    """The same outcome with the usage of the row's own fixtures added."""
    return replace(outcome, usage=sum_by_identity([*outcome.usage, *used])) if used else outcome


def _outcome(performed: Performed) -> Outcome:
    if performed.error is not None:
        return _failed(performed.error, performed)
    return _judged(performed.returned, performed)


def _outcomes(performed: Performed, rows: int) -> list[Outcome]:
    returned, error = performed.returned, performed.error
    if error is None and not isinstance(returned, list | tuple):
        error = InvalidResultError(
            f"the eval function returned {_kind(returned)} for a batch of {counted(rows, 'row')}, "
            "not a list of results",
            remedy="Return a list with one Result (or score) for each row, in the same order.",
        )
    elif error is None and len(returned) != rows:
        error = InvalidResultError(
            f"the eval function returned {counted(len(returned), 'result')} for a batch of {counted(rows, 'row')}",
            remedy="Return one Result (or score) for each row, in the same order. All rows of this batch have failed, "
            "since nothing says which result belongs to which row.",
        )
    if error is not None:
        outcomes = [_failed(error, performed)] * rows
    else:
        outcomes = [_judged(each, performed) for each in returned]
    return [outcomes[0], *(replace(outcome, usage=()) for outcome in outcomes[1:])]


def _failed(error: BaseException, performed: Performed, *, prefix: str = "") -> Outcome:
    skipped = is_skip(error)
    return Outcome(
        status=RowStatus.SKIPPED if skipped else RowStatus.FAILED,
        started_at=performed.started_at,
        seconds=performed.seconds,
        error=skip_reason(error) if skipped else describe(error, prefix=prefix),
        usage=performed.usage,
    )


def _judged(returned: Any, performed: Performed) -> Outcome:
    if isinstance(returned, Result):
        if returned.error is not None:
            error = RowError(type="Result.error", message=str(returned.error))
            status = RowStatus.FAILED
        else:
            error, status = None, RowStatus.DONE
        return Outcome(
            status,
            performed.started_at,
            performed.seconds,
            returned.scores,
            returned.prompt,
            returned.model_response,
            returned.metadata,
            error,
            performed.usage,
        )
    if isinstance(returned, Score):
        return Outcome(RowStatus.DONE, performed.started_at, performed.seconds, (returned,), usage=performed.usage)
    return _failed(
        InvalidResultError(f"the eval function returned {_kind(returned)}, not a Result or a Score", remedy=_REMEDY),
        performed,
    )


def _kind(value: Any) -> str:
    return type(value).__name__
