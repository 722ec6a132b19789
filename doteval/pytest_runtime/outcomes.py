"""Outcomes of pytest: what an evaluation's marks say before it runs, and how an exception ends it.

They mean the same in plain pytest and for a submission, since both ask here: `stop_before_rows` before anything of the
evaluation is loaded or read, `ending_of` when something was raised.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.plugins import did_you_mean
from doteval.core.states import EvaluationEnd
from doteval.errors import DotEvalError, EvaluationFileError, UsageError
from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.items import EvaluationItem
from doteval.runner.error_classes import describe, is_skip, skip_reason


def stop_before_rows(item: EvaluationItem) -> BaseException | None:
    """What pytest would raise for an evaluation before it sets any fixture up, None if the evaluation may run.

    That is a skip (`skip`, `skipif`), an expected failure (`xfail(run=False)`), or an EvaluationFileError if a mark
    cannot be evaluated or a fixture does not exist. Nothing is loaded and no dataset is opened to find out.
    """
    try:
        internals.raise_marks(item)
    except BaseException as error:  # noqa: BLE001 - conditions of marks are user code
        if is_skip(error) or isinstance(error, pytest.xfail.Exception):
            return error
        return _refused(item, error, str(error))
    try:
        internals.raise_missing_fixture(item)
    except pytest.FixtureLookupError as error:
        said, _, more = internals.lookup_error_text(error).partition("\n")
        # Plugins bring dozens of fixtures; of all names only one that looks like the missing one helps.
        names = more.partition("available fixtures: ")[2].partition("\n")[0].split(", ")
        remedy = did_you_mean(
            str(error.argname), names, f"List those that exist with: pytest --fixtures {item.evaluation_path}"
        )
        return _refused(item, error, f"{said}\n{remedy}", page="troubleshooting#fixture-not-found")
    return None


def runnable(items: Iterable[EvaluationItem]) -> list[EvaluationItem]:
    """The evaluations that nothing stops before their fixtures are set up."""
    return [item for item in items if stop_before_rows(item) is None]


def ending_of(item: object, error: BaseException, *, otherwise: EvaluationEnd = EvaluationEnd.ERROR) -> Ending:
    """How an exception ends the evaluation `item` as a whole.

    `item` is an EvaluationItem, or a function that `doteval.run` was given, which has no marks. `otherwise` is the
    cause of errors that do not say their own.
    """
    if is_skip(error):
        return Ending(EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED, skip_reason(error).message)
    if isinstance(error, pytest.xfail.Exception):
        return Ending(EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED, f"xfail: {error}")
    if isinstance(error, KeyboardInterrupt):
        return Ending(EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, "interrupted")
    if isinstance(error, pytest.exit.Exception):
        return Ending(EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, f"pytest.exit: {error}")
    cause, reason = _failure(error, otherwise)
    expected = internals.expected_failure(item, error) if isinstance(item, EvaluationItem) else None
    if expected is not None:
        why = f" ({expected})" if expected else ""
        return Ending(EvaluationStatus.FAILED, EvaluationEnd.EXPECTED_FAILURE, f"xfail{why}: {reason}")
    return Ending(EvaluationStatus.FAILED, cause, reason)


def _failure(error: BaseException, otherwise: EvaluationEnd) -> tuple[EvaluationEnd, str]:
    if isinstance(error, pytest.FixtureLookupError):
        return EvaluationEnd.EVALUATION_REFUSED, internals.lookup_error_text(error).partition("\n")[0]
    if isinstance(error, EvaluationFileError):
        cause = error.__cause__
        # The reason is shown beside the name of the evaluation, which only the message of the error needs.
        reason = error.message if cause is None else _failure(cause, otherwise)[1]
        return EvaluationEnd.EVALUATION_REFUSED, reason.partition("\n")[0]
    if isinstance(error, UsageError):
        return EvaluationEnd.DATASET_REFUSED, error.message
    if isinstance(error, DotEvalError):
        return otherwise, error.message
    described = describe(error)
    return otherwise, f"{described.type}: {described.message}"


def _refused(item: EvaluationItem, cause: BaseException, text: str, *, page: str | None = None) -> EvaluationFileError:
    what, _, more = text.partition("\n")
    remedy = "\n".join(line.strip() for line in more.splitlines())
    refused = EvaluationFileError(
        f"{item.evaluation_path}::{item.evaluation_name}: {what.strip()}", remedy=remedy or None, page=page
    )
    refused.__cause__ = cause
    return refused
