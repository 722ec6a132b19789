"""Experiments and evaluations, as the store holds them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Self

from doteval.core import clocks
from doteval.core.budgets import BudgetStop
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.core.wording import counted


class EvaluationStatus(StrEnum):
    """The status of an evaluation.

    >>> EvaluationStatus("completed") is EvaluationStatus.COMPLETED
    True
    """

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Ending:
    """How an evaluation ends otherwise than with all of its rows; `reason` says so to people."""

    status: EvaluationStatus
    cause: EvaluationEnd
    reason: str

    @classmethod
    def at_budget(cls, stop: BudgetStop) -> Self:
        """How an evaluation ends that may begin no further row."""
        return cls(EvaluationStatus.CANCELLED, stop.cause, stop.message)

    @classmethod
    def after_estimate(cls) -> Self:
        """How an evaluation ends of which only the rows of an estimate are to run."""
        return cls(EvaluationStatus.CANCELLED, EvaluationEnd.ESTIMATED, "only the rows of an estimate have run")

    @classmethod
    def at_max_errors(cls, most: int) -> Self:
        """How an evaluation ends in which more than `most` rows have failed."""
        reason = f"more than {counted(most, 'row has', 'rows have')} failed"
        return cls(EvaluationStatus.FAILED, EvaluationEnd.TOO_MANY_ERRORS, reason)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named set of evaluations: one name for one intention of a user."""

    id: int
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What identifies an evaluation, and how its rows are run.

    path: the file's path below the pytest root directory, with forward slashes.
    name: the function with its class and parameters (``EvalA::eval_b[gpt-large]``).
    fingerprint: for every file of the user that the evaluation consists of, its path and a hash of its content.
    """

    path: str
    name: str
    columns: tuple[str, ...]
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    config: RunConfig = field(default_factory=RunConfig)

    @property
    def nodeid(self) -> str:
        return f"{self.path}::{self.name}"


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of rows by status; samples count. `total` is None while the dataset is still being read.

    >>> Counts(total=10, done=6, failed=1).pending
    3
    """

    total: int | None = None
    done: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def finished(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def ran(self) -> bool:
        """Whether a row has run: skipped rows do not count."""
        return bool(self.done or self.failed)

    @property
    def pending(self) -> int:
        return max(0, (self.total or 0) - self.finished)


@dataclass(frozen=True, slots=True)
class WorkTime:
    """How long an evaluation took, in seconds.

    worked: the sum of its running spans; the time between an end and a resumption is not in it.
    elapsed: from its first beginning to its last end, or to now.
    """

    worked: float
    elapsed: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation in the store.

    uid: its name in messages; no two stores share one.
    end_cause: why it ended otherwise than with all of its rows.
    reason: the same for people.
    dataset_notes: what a reader of its figures has to know about its dataset.
    rows_hash: a hash of the keys of all its rows in order; None if not all have been read, or by an older release.
    dataset_source: what its rows are for ever, ``hf://OWNER/NAME@COMMIT?split=SPLIT``; None for other datasets.
    repaid_rows: how many of its rows asked something else when they ran again, and so paid for calls again.

    >>> from datetime import UTC, datetime
    >>> began = datetime(2026, 1, 31, tzinfo=UTC)
    >>> spec = EvaluationSpec("eval_sums.py", "eval_sums", ("question", "answer"))
    >>> experiment = Experiment(1, "nightly", began)
    >>> Evaluation(1, "u1", experiment, spec, EvaluationStatus.RUNNING, None, Counts(10, done=4), began).counts.pending
    6
    """

    id: int
    uid: str
    experiment: Experiment
    spec: EvaluationSpec
    status: EvaluationStatus
    reason: str | None
    counts: Counts
    created_at: datetime
    finished_at: datetime | None = None
    end_cause: EvaluationEnd | None = None
    dataset_notes: tuple[str, ...] = ()
    rows_hash: str | None = None
    repaid_rows: int = 0
    dataset_source: str | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def config(self) -> RunConfig:
        return self.spec.config

    @property
    def is_private(self) -> bool:
        """Whether its row tasks travel by the private broker of its submission."""
        return self.config.private_broker is not None

    @property
    def stopped_at_budget(self) -> bool:
        """Whether it stopped because its budget was used up."""
        return self.end_cause is not None and self.end_cause.is_of_budget

    @property
    def budget_stop(self) -> BudgetStop | None:
        """The budget's reason for its end, None if it did not stop at its budget."""
        if self.end_cause is None or not self.end_cause.is_of_budget:
            return None
        return BudgetStop(self.end_cause, self.reason or "")

    @property
    def queue(self) -> str | None:
        """The queue that its row tasks travel on, None if nobody has named one, as where pytest runs the rows.

        The queue of a private broker has a name that no other queue has: commands that have a broker each may share
        a result store.
        """
        config = self.config
        return None if config.queue is None else private_queue(config.queue, config.private_broker)


def private_queue(name: str, private: str | None) -> str:
    """The name of a queue in messages and in the store.

    >>> private_queue("gpu", None), private_queue("gpu", "p1")
    ('gpu', 'gpu@p1')
    """
    return name if private is None else f"{name}@{private}"


_EPHEMERAL = re.compile(r"\d{8}_\d{6}_[0-9a-f]{8}")


def is_ephemeral(name: str) -> bool:
    """Whether a name is one of `ephemeral_name`.

    >>> is_ephemeral(ephemeral_name()), is_ephemeral("baseline")
    (True, False)
    """
    return _EPHEMERAL.fullmatch(name) is not None


def ephemeral_name(now: datetime | None = None) -> str:
    """A name for an experiment that the user did not name: ``YYYYMMDD_HHMMSS_xxxxxxxx``."""
    moment = now or clocks.utc_now().astimezone()
    return f"{moment:%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"
