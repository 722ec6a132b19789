"""Experiments and evaluations as the store knows them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

# The key of an evaluation's metadata that says how many rows a call takes, where it takes several.
BATCH_SIZE = "batch_size"
# The one that says how many calls of it run at once in a process that was told nothing else, and the one that is true
# if that is what its decorator says, whatever processes are told.
CONCURRENCY = "concurrency"
OWN_CONCURRENCY = "own_concurrency"
# And the one that says how rows are to be called: retries, delay (seconds), timeout (seconds or None).
POLICY = "policy"
# And the one that says how many worker processes a row may take along before it is given up.
MAX_CRASHES = "max_crashes"
# The one that says which queue its row tasks travel on, and the one that is true if a mark of its own says so.
QUEUE = "queue"
PLACED = "placed"
# The one that names the private broker of the command that it was submitted by, if there was one.
PRIVATE = "private"
# The one that says which root directory of pytest's it was submitted from.
ROOT = "root"


class EvaluationStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Experiment:
    """A named set of evaluations: one name for one intention of a user."""

    id: int
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """What identifies an evaluation before it is stored.

    `path` is the file's path below the pytest root directory, with forward slashes; `name` is the
    function with its class and parameters (``EvalA::eval_b[gpt-large]``). `fingerprint` maps the
    path of every file of the user's that the evaluation consists of to a hash of its content.
    """

    path: str
    name: str
    columns: tuple[str, ...]
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)

    @property
    def nodeid(self) -> str:
        return f"{self.path}::{self.name}"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows stand where. `total` is None while the dataset is still being read."""

    total: int | None = None
    done: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def finished(self) -> int:
        return self.done + self.failed + self.skipped

    @property
    def pending(self) -> int:
        return max(0, (self.total or 0) - self.finished)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation in the store. `uid` names it in messages: two stores never share one."""

    id: int
    uid: str
    experiment: Experiment
    spec: EvaluationSpec
    status: EvaluationStatus
    reason: str | None
    counts: Counts
    created_at: datetime
    finished_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def queue(self) -> str | None:
        """The queue that its row tasks travel on, None if nobody has said so, as where pytest runs the rows.

        Queues of private brokers have names that nothing else has: result stores are shared by commands that
        have a broker each.
        """
        return None if self.queue_name is None else private_queue(self.queue_name, self.private)

    @property
    def queue_name(self) -> str | None:
        """The name of that queue, as people gave it."""
        queue = self.spec.metadata.get(QUEUE)
        return queue if isinstance(queue, str) else None

    @property
    def private(self) -> str | None:
        """What the private broker is called that its row tasks travel by, None for one that anybody may use."""
        private = self.spec.metadata.get(PRIVATE)
        return private if isinstance(private, str) else None

    @property
    def batch_size(self) -> int | None:
        """How many rows a call takes, None if it takes one."""
        size = self.spec.metadata.get(BATCH_SIZE)
        return size if isinstance(size, int) else None

    def concurrency_in(self, told: int | None) -> int | None:
        """How many of its calls run at once in a process that was told so many, None if nobody has said so."""
        its = self.spec.metadata.get(CONCURRENCY)
        default = its if isinstance(its, int) else None
        return default if self.spec.metadata.get(OWN_CONCURRENCY) else told or default


def private_queue(name: str, private: str | None) -> str:
    """What a queue is called everywhere: its name, unless it is one of a private broker."""
    return name if private is None else f"{name}@{private}"


def ephemeral_name(now: datetime | None = None) -> str:
    """The name of an experiment that the user gave none: ``YYYYMMDD_HHMMSS_xxxxxxxx``."""
    moment = now or datetime.now(UTC).astimezone()
    return f"{moment:%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"
