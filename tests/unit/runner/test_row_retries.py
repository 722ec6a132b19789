"""Retries of calls: after which errors, how often, and which error and usage the row keeps."""

from __future__ import annotations

from typing import Any

import pytest
import tenacity

from doteval.core.metering import current_meter
from doteval.core.results import ErrorClass, RowStatus, Usage
from doteval.errors import UsageError
from doteval.runner.calls import CallPolicy, call
from tests.support.eval_calls import NEVER, SCORE, Run, raising

RETRYING = CallPolicy(retries=2, delay=0.0)


def test_a_connection_error_is_retried(run: Run) -> None:
    function = raising(ConnectionResetError("1"), TimeoutError("2"))
    outcome = run(function, RETRYING)
    assert outcome.status is RowStatus.DONE
    assert function.calls == 3  # type: ignore[attr-defined]


def test_after_the_last_retry_the_row_keeps_the_original_error(run: Run) -> None:
    function = raising(*(ConnectionResetError(f"number {number}") for number in range(9)))
    outcome = run(function, RETRYING)
    assert function.calls == 3  # type: ignore[attr-defined]
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("ConnectionResetError", "number 2")
    assert outcome.error.error_class is ErrorClass.INFRASTRUCTURE
    assert "raise left.pop(0)" in outcome.error.traceback


HIDING = {
    "in a group": lambda error: ExceptionGroup("tasks", [error]),
    "in groups": lambda error: ExceptionGroup("tasks", [error, ExceptionGroup("more tasks", [TimeoutError()])]),
    "as a cause": lambda error: _raised_from(RuntimeError("the judge failed"), error),
    "as a cause in a group": lambda error: ExceptionGroup("tasks", [_raised_from(KeyError("reply"), error)]),
}


def _raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("hiding", HIDING)
def test_a_connection_error_that_another_error_hides_is_retried(run: Run, hiding: str) -> None:
    function = raising(HIDING[hiding](ConnectionResetError("1")), HIDING[hiding](ConnectionResetError("2")))
    assert run(function, RETRYING).status is RowStatus.DONE
    assert function.calls == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("hiding", HIDING)
def test_an_evaluation_error_that_another_error_hides_is_not_retried(run: Run, hiding: str) -> None:
    function = raising(HIDING[hiding](ValueError("no")))
    assert run(function, RETRYING).status is RowStatus.FAILED
    assert function.calls == 1  # type: ignore[attr-defined]


def test_errors_of_the_evaluation_are_not_retried(run: Run) -> None:
    function = raising(ValueError("no"))
    assert run(function, RETRYING).status is RowStatus.FAILED
    assert function.calls == 1  # type: ignore[attr-defined]


def test_an_evaluation_error_in_a_retry_ends_the_retries(run: Run) -> None:
    function = raising(ConnectionError("1"), ValueError("2"))
    outcome = run(function, RETRYING)
    assert function.calls == 2  # type: ignore[attr-defined]
    assert outcome.error is not None
    assert outcome.error.type == "ValueError"


def test_no_retries_by_default(run: Run) -> None:
    function = raising(ConnectionError("1"))
    assert run(function).status is RowStatus.FAILED
    assert function.calls == 1  # type: ignore[attr-defined]


def test_every_retry_is_delayed_even_the_first(run: Run) -> None:
    delay = 0.05
    outcome = run(raising(ConnectionError("1"), ConnectionError("2")), CallPolicy(retries=2, delay=delay))
    assert outcome.status is RowStatus.DONE
    assert outcome.seconds >= delay + 2 * delay


def test_a_skip_in_a_retry_skips_the_row(run: Run) -> None:
    assert run(raising(ConnectionError("1"), pytest.skip.Exception("x")), RETRYING).status is RowStatus.SKIPPED


def test_ctrl_c_in_a_retry_ends_the_command() -> None:
    with pytest.raises(KeyboardInterrupt):
        call(raising(ConnectionError("1"), KeyboardInterrupt()), {}, RETRYING)


def test_usage_of_all_attempts_counts(run: Run) -> None:
    errors = [ConnectionError("1"), ConnectionError("2")]

    def function() -> Any:
        meter = current_meter()
        assert meter is not None
        meter.add(Usage("m", requests=1))
        if errors:
            raise errors.pop()
        return SCORE

    assert run(function, RETRYING).usage == (Usage("m", requests=3),)


@pytest.mark.parametrize("retrying", [tenacity.Retrying, tenacity.AsyncRetrying])
def test_a_tenacity_object_replaces_the_retries(run: Run, retrying: Any) -> None:
    own = retrying(stop=tenacity.stop_after_attempt(3), retry=tenacity.retry_if_exception_type(LookupError))
    policy = NEVER.with_retries(own)
    assert run(raising(KeyError("1"), IndexError("2")), policy).status is RowStatus.DONE
    outcome = run(raising(*map(KeyError, "12345")), policy)
    assert outcome.error is not None
    # tenacity would raise its own RetryError.
    assert (outcome.error.type, outcome.error.message) == ("KeyError", "'3'")


@pytest.mark.parametrize("own", [-1, 1.5, True, "3", object()])
def test_invalid_retries_are_refused(own: object) -> None:
    with pytest.raises(UsageError, match="retries is"):
        NEVER.with_retries(own)
