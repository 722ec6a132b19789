"""How evaluations, worker processes and loads of fixtures end, as the columns of the store hold it.

Each has a text for people beside it; programs read only these enums.
"""

from __future__ import annotations

from enum import StrEnum


class EvaluationEnd(StrEnum):
    """Why an evaluation has ended otherwise than with all of its rows, or was never run."""

    BUDGET_USED_UP = "budget_used_up"
    BUDGET_UNPRICED = "budget_unpriced"
    """Its budget is in dollars, and tokens were used that have no price."""
    QUOTA_USED_UP = "quota_used_up"
    """The account of a model API has no money left."""
    CANCELLED_BY_USER = "cancelled_by_user"
    INTERRUPTED = "interrupted"
    """The process that ran its rows was stopped by Ctrl-C or a signal."""
    ESTIMATED = "estimated"
    """Only a sample of its rows ran, for an estimate."""
    SKIPPED = "skipped"
    """A mark, a fixture, its dataset or each of its rows said to skip it."""
    EXPECTED_FAILURE = "expected_failure"
    """It failed, as its xfail mark expects."""
    PASSED_UNEXPECTEDLY = "passed_unexpectedly"
    """Its rows ran, and a strict xfail mark expects it to fail."""
    EVALUATION_REFUSED = "evaluation_refused"
    """Its file needs a change: a fixture that it requests does not exist, say."""
    FIXTURES_FAILED = "fixtures_failed"
    """No worker process could load its fixtures."""
    OTHER_CODE = "other_code"
    """No worker process has the submitter's files."""
    WORKERS_CANNOT_START = "workers_cannot_start"
    TOO_MANY_ERRORS = "too_many_errors"
    DATASET_REFUSED = "dataset_refused"
    ERROR = "error"

    @property
    def is_refusal(self) -> bool:
        """Whether its file or its dataset needs a change before its rows can run."""
        return self in (EvaluationEnd.EVALUATION_REFUSED, EvaluationEnd.DATASET_REFUSED)

    @property
    def is_of_budget(self) -> bool:
        """Whether it ended because no more money may be spent, or none is left."""
        return self in (EvaluationEnd.BUDGET_USED_UP, EvaluationEnd.BUDGET_UNPRICED, EvaluationEnd.QUOTA_USED_UP)


class WorkerPhase(StrEnum):
    """What a worker process is doing."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    SUBMITTING = "submitting"
    """It is no worker process but a command that submits evaluations and follows them."""
    LEFT = "left"


class WorkerEnd(StrEnum):
    """How a worker process ended."""

    LEFT = "left"
    """In order: it was asked to, or its work was done."""
    RECYCLED = "recycled"
    """In order, to make room for a fresh process: at its limit of rows or memory, or since its files have changed."""
    FAILED_TO_START = "failed_to_start"
    EXITED = "exited"
    """With an exit code, and without saying why."""
    KILLED = "killed"
    """By a signal."""
    STUCK = "stuck"
    """Ended because a row or a teardown was over its time and could not be interrupted."""
    LOST = "lost"
    """Nobody knows how."""

    @property
    def is_crash(self) -> bool:
        """Whether it ended without finishing the rows that it held."""
        return self in (WorkerEnd.EXITED, WorkerEnd.KILLED, WorkerEnd.STUCK, WorkerEnd.LOST)


class LoadFailureKind(StrEnum):
    """Why a worker process cannot run an evaluation."""

    ERROR = "error"
    SKIPPED = "skipped"
    """A fixture or a mark said to skip."""
    EXPECTED = "expected"
    """A fixture failed, as an xfail mark expects."""
    OTHER_CODE = "other_code"
    """Its files are not the submitter's, nor are those on the disk of its machine."""
    STALE_CODE = "stale_code"
    """Its files have changed since it read them. It reads the submitter's once it has no other rows to run."""
