"""What an eval function returns or raises becomes the outcome of its row."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from doteval.core.metering import current_meter
from doteval.core.results import ErrorClass, Outcome, Result, RowStatus, Score, Usage
from doteval.runner.calls import call, call_async, failed_before_call, with_teardown_errors
from tests.support.eval_calls import NEVER, SCORE, Run, raising

# Returned values.


def test_a_score(run: Run) -> None:
    outcome = run(lambda x: SCORE, x=1)
    assert outcome.status is RowStatus.DONE
    assert outcome.scores == (SCORE,)
    assert outcome.error is None


def test_a_result_with_all_its_fields(run: Run) -> None:
    other = Score("length", 3)
    outcome = run(
        lambda text: Result(SCORE, other, prompt=text, model_response={"a": 1}, metadata={"k": "v"}), text="hello"
    )
    assert outcome.status is RowStatus.DONE
    assert outcome.scores == (SCORE, other)
    assert (outcome.prompt, outcome.model_response, outcome.metadata) == ("hello", {"a": 1}, {"k": "v"})


def test_a_result_with_an_error_fails_and_keeps_the_rest(run: Run) -> None:
    outcome = run(lambda: Result(SCORE, prompt="p", error="no answer"))
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("Result.error", "no answer")
    assert outcome.error.error_class is ErrorClass.EVALUATION
    assert (outcome.scores, outcome.prompt) == ((SCORE,), "p")


def test_a_result_without_scores_is_done(run: Run) -> None:
    outcome = run(lambda: Result(prompt="p"))
    assert (outcome.status, outcome.scores, outcome.prompt) == (RowStatus.DONE, (), "p")


@pytest.mark.parametrize("returned", [None, True, 1.0, "text", [SCORE], (SCORE,), {"ok": True}, Result, object()])
def test_anything_else_fails_and_is_named_by_type(run: Run, returned: object) -> None:
    outcome = run(lambda: returned)
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "InvalidResultError"
    assert f"returned {type(returned).__name__}," in outcome.error.message


def test_times_are_those_of_the_call(run: Run) -> None:
    before = time.time()

    def function() -> Score:
        time.sleep(0.05)
        return SCORE

    outcome = run(function)
    assert 0.05 <= outcome.seconds < 5
    assert before <= outcome.started_at <= time.time() - 0.05


# Raised errors.


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        AssertionError("1 == 2"),
        SystemExit("bye"),
        SystemExit(3),
        GeneratorExit("g"),
        asyncio.CancelledError("mine"),
        StopAsyncIteration("stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_a_row_fails_the_row(run: Run, error: BaseException) -> None:
    outcome = run(raising(error))
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == type(error).__name__
    assert str(error) in outcome.error.message
    assert outcome.error.error_class is ErrorClass.EVALUATION
    assert "raise left.pop(0)" in outcome.error.traceback
    assert outcome.scores == ()


def test_an_exception_group_fails_the_row_with_the_errors_in_it(run: Run) -> None:
    error = run(raising(BaseExceptionGroup("several", [ValueError("a"), SystemExit("b")]))).error
    assert error is not None
    assert (error.type, error.message) == ("ValueError", "a (also SystemExit: b)")
    assert "several (2 sub-exceptions)" in error.traceback


def test_stop_iteration_does_not_end_an_iterating_caller() -> None:
    # Only sync: in a coroutine, Python makes it a RuntimeError.
    outcomes = [call(raising(StopIteration("x")), {}, NEVER) for _ in range(2)]
    assert [outcome.error and outcome.error.type for outcome in outcomes] == ["StopIteration"] * 2


def test_a_nested_error_class_has_its_qualified_name(run: Run) -> None:
    class OwnError(Exception):
        pass

    error = run(raising(OwnError("x"))).error
    assert error is not None
    assert error.type.endswith("test_a_nested_error_class_has_its_qualified_name.<locals>.OwnError")


def test_pytest_skip_skips_the_row(run: Run) -> None:
    outcome = run(lambda: pytest.skip("not in English"))
    assert outcome.status is RowStatus.SKIPPED
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("Skipped", "not in English")


@pytest.mark.parametrize(("function", "kind"), [(pytest.fail, "Failed"), (pytest.xfail, "XFailed")])
def test_pytest_fail_and_xfail_fail_the_row(run: Run, function: Callable[[str], None], kind: str) -> None:
    outcome = run(lambda: function("as expected"))
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == (kind, "as expected")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.exit.Exception("enough")], ids=["Ctrl-C", "exit"])
def test_ctrl_c_and_pytest_exit_end_the_command(error: BaseException) -> None:
    with pytest.raises(type(error)):
        call(raising(error), {}, NEVER)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), pytest.exit.Exception("enough")], ids=["Ctrl-C", "exit"])
def test_on_another_thread_they_fail_the_row(error: BaseException) -> None:
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(call, raising(error), {}, NEVER).result()
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == type(error).__name__


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


def test_an_exception_whose_str_raises(run: Run) -> None:
    outcome = run(raising(UnprintableError()))
    assert outcome.error is not None
    assert outcome.error.type == "UnprintableError"
    assert "its __str__ raised RuntimeError" in outcome.error.message
    assert "raise left.pop(0)" in outcome.error.traceback


def test_an_exception_that_cannot_be_formatted_shows_its_frames(run: Run) -> None:
    class UnformattableError(Exception):
        @property
        def __notes__(self) -> list[str]:
            raise RuntimeError("not even this")

    error = run(raising(UnformattableError("x"))).error
    assert error is not None
    assert error.message == "x"
    assert "raise left.pop(0)" in error.traceback


def test_an_exception_without_a_message_shows_its_repr(run: Run) -> None:
    error = run(raising(KeyError())).error
    assert error is not None
    assert error.message == "KeyError()"


def test_endless_recursion(run: Run) -> None:
    def recurse() -> Any:
        return recurse()

    outcome = run(recurse)
    assert outcome.error is not None
    assert outcome.error.type == "RecursionError"
    assert len(outcome.error.traceback.splitlines()) < 60
    # The next row has the whole stack again.
    assert run(lambda: SCORE).status is RowStatus.DONE


def test_long_messages_and_tracebacks_are_cut(run: Run) -> None:
    def deep(left: int) -> Any:
        if left:
            return deep(left - 1)
        raise ValueError("x" * 100_000)

    error = run(lambda: deep(sys.getrecursionlimit() // 3)).error
    assert error is not None
    assert len(error.message) == 4_000
    assert len(error.traceback) <= 8_000


def test_the_traceback_keeps_the_cause_of_the_error(run: Run) -> None:
    def function() -> Any:
        try:
            raise LookupError("below")
        except LookupError as error:
            raise ValueError("above") from error

    error = run(function).error
    assert error is not None
    assert "LookupError: below" in error.traceback
    assert "direct cause" in error.traceback


# Usage.


def test_the_usage_of_the_row_is_in_its_outcome(run: Run) -> None:
    def function(fails: bool) -> Any:
        meter = current_meter()
        assert meter is not None
        meter.add(Usage("m", requests=1, prompt_tokens=5))
        meter.add(Usage("m", requests=1, prompt_tokens=7))
        if fails:
            raise ValueError("no")
        return SCORE

    for fails in (False, True):
        assert run(function, fails=fails).usage == (Usage("m", requests=2, prompt_tokens=12),)
    assert current_meter() is None


def test_overlapping_rows_have_separate_meters() -> None:
    async def row(n: int) -> Any:
        for _ in range(n):
            meter = current_meter()
            assert meter is not None
            meter.add(Usage("m", requests=1))
            await asyncio.sleep(0)
        return SCORE

    async def main() -> list[Outcome]:
        return await asyncio.gather(*(call_async(row, {"n": n}, NEVER) for n in range(1, 20)))

    assert [outcome.usage[0].requests for outcome in asyncio.run(main())] == list(range(1, 20))


def test_usage_in_threads_of_a_row_counts(run: Run) -> None:
    def function() -> Any:
        meter = current_meter()
        assert meter is not None
        threads = [threading.Thread(target=functools.partial(meter.add, Usage("m", requests=1))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return SCORE

    assert run(function).usage == (Usage("m", requests=8),)


# Before and after the call.


def test_a_failure_before_the_call_says_where_it_happened() -> None:
    outcome = failed_before_call(RuntimeError("no GPU"), "at the set-up of a fixture")
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.message == "at the set-up of a fixture: no GPU"
    assert failed_before_call(pytest.skip.Exception("x"), "anywhere").status is RowStatus.SKIPPED


def test_teardown_errors_are_added_and_lose_nothing() -> None:
    done = call(lambda: SCORE, {}, NEVER)
    assert with_teardown_errors(done, []) is done
    with_errors = with_teardown_errors(done, [RuntimeError("no teardown"), ValueError("nor this")])
    assert with_errors.status is RowStatus.DONE
    assert with_errors.scores == (SCORE,)
    assert with_errors.error is not None
    assert with_errors.error.message == "at the teardown of a fixture: no teardown"

    failed = with_teardown_errors(call(raising(ValueError("the row")), {}, NEVER), [RuntimeError("no teardown")])
    assert failed.error is not None
    assert failed.error.type == "ValueError"
    assert "the row" in failed.error.message
    assert "no teardown" in failed.error.message
