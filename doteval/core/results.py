"""What one row produces: scores, results, errors and usage. The values never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from doteval.core.fast_dataclass import row_value
from doteval.core.histogram import NO_LATENCY, Latency
from doteval.core.row_labels import RowLabel
from doteval.errors import InvalidResultError


class RowStatus(StrEnum):
    """The status of a row. A row without a result is pending."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class ErrorClass(StrEnum):
    """What failed: failures of the infrastructure may be retried, those of the evaluation need a change."""

    EVALUATION = "evaluation"
    INFRASTRUCTURE = "infrastructure"
    QUOTA = "quota"
    """The account of a model API has no money left."""
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Score:
    """The judgement of an evaluator on one row.

    value: a bool, a number or a label.
    metrics: the metrics, or their names, that aggregate the value over all rows.
    metadata: whatever else the evaluator wants to keep.

    >>> Score("length", 12, ["mean"]).metric_names
    ('mean',)
    """

    name: str
    value: Any
    metrics: Sequence[Any] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the metrics, as they are stored."""
        return tuple(
            metric if isinstance(metric, str) else str(getattr(metric, "name", metric.__name__))
            for metric in self.metrics
        )


class Result:
    """What an eval function returns for one row.

    It holds any number of scores and, for the record, the prompt, the model's response, an error message of the
    author's own, and metadata. A row whose result has an error counts as failed.

    Raises InvalidResultError: a positional argument is not a `Score`, or two scores have one name.

    >>> Result(Score("short", True), prompt="Say hi").scores[0].value
    True
    """

    __slots__ = ("error", "metadata", "model_response", "prompt", "scores")

    def __init__(
        self,
        *scores: Score,
        prompt: Any = None,
        model_response: Any = None,
        error: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        for score in scores:
            if not isinstance(score, Score):
                raise InvalidResultError(
                    f"Result() takes scores, not {type(score).__name__}",
                    remedy="Pass what an evaluator returns, or Score(name, value, metrics).",
                )
        names = [score.name for score in scores]
        for name in names:
            if names.count(name) > 1:
                raise InvalidResultError(
                    f"Result() has two scores named {name!r}",
                    remedy='Rename one: evaluator(..., name="another name").',
                )
        self.scores = scores
        self.prompt = prompt
        self.model_response = model_response
        self.error = error
        self.metadata: Mapping[str, Any] = dict(metadata or {})

    def __repr__(self) -> str:
        return f"Result({', '.join(map(repr, self.scores))}, prompt={self.prompt!r}, error={self.error!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row failed or was skipped: the exception's type and message, and its traceback as text."""

    type: str
    message: str
    error_class: ErrorClass = ErrorClass.EVALUATION
    traceback: str = ""


@row_value
class Usage:
    """What the calls to one model used.

    requests: calls of a client's methods.
    attempts: tries sent to the server; none for a cache hit, several if a request was repeated.
    unfinished: tries that began and of which nobody saw the end, because the process was killed, say. They count as
        attempts; their tokens are not known.
    cost: US dollars, None if the model has no price.
    seconds: time spent on tries.
    waited: seconds spent waiting for rate limits.
    batch_cost: what the same costs in batches, None if the model has no price.
    judge: whether a judge asked.
    batch: whether batches answered, at their price.
    latency: how long each reply took.

    >>> Usage("gpt-4o", requests=2, prompt_tokens=300, completion_tokens=40).prompt_tokens
    300
    """

    model: str
    requests: int = 0
    attempts: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    unfinished: int = 0
    cost: float | None = None
    seconds: float = 0.0
    waited: float = 0.0
    batch_cost: float | None = None
    judge: bool = False
    batch: bool = False
    latency: Latency = NO_LATENCY

    @property
    def identity(self) -> tuple[str, bool, bool]:
        """What it is the usage of, by the names in `USAGE_IDENTITY`."""
        return self.model, self.judge, self.batch

    @property
    def name(self) -> str:
        """The model, and in brackets what its usage was for.

        >>> Usage("m").name, Usage("m", judge=True, batch=True).name
        ('m', 'm (judge, batch)')
        """
        if not (self.judge or self.batch):
            return self.model
        marks = [mark for mark, holds in (("judge", self.judge), ("batch", self.batch)) if holds]
        return f"{self.model} ({', '.join(marks)})"

    @property
    def hit_rate(self) -> float | None:
        """The share of cache look-ups that were hits, from 0 to 1; None without look-ups."""
        lookups = self.cache_hits + self.cache_misses
        return self.cache_hits / lookups if lookups else None

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.model,
            self.requests + other.requests,
            self.attempts + other.attempts,
            self.cache_hits + other.cache_hits,
            self.cache_misses + other.cache_misses,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.unfinished + other.unfinished,
            _known_sum(self.cost, other.cost),
            self.seconds + other.seconds,
            self.waited + other.waited,
            _known_sum(self.batch_cost, other.batch_cost),
            self.judge,
            self.batch,
            self.latency + other.latency,
        )


USAGE_IDENTITY = ("model", "judge", "batch")
"""The fields of usage that say what it is the usage of. All others are sums."""


def _known_sum(one: float | None, other: float | None) -> float | None:
    return None if one is None and other is None else (one or 0.0) + (other or 0.0)


@row_value
class Outcome:
    """One execution of one row, before it is stored.

    started_at: seconds since the epoch.
    seconds: how long it took.
    """

    status: RowStatus
    started_at: float
    seconds: float
    scores: tuple[Score, ...] = ()
    prompt: Any = None
    model_response: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: RowError | None = None
    usage: tuple[Usage, ...] = ()


@row_value
class Row:
    """One record of a dataset.

    index: its position in the dataset.
    key: a hash of its content.
    values: its values by column.
    encoded: the JSON form of the values, if the caller has it already.
    """

    index: int
    key: str
    values: Mapping[str, Any]
    sample: int = 0
    encoded: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Record:
    """A stored result with its row, and what people say of it.

    `result`, `error` and `item_id` are the names that doteval 0.22 uses.

    >>> row = Row(7, "key of the row", {"text": "hello"})
    >>> outcome = Outcome(RowStatus.DONE, 0.0, 1.0, (Score("short", True),), model_response="hi")
    >>> record = Record(row, outcome)
    >>> record.item_id, record.row.values, record.result.scores[0].value, record.error
    (7, {'text': 'hello'}, True, None)
    """

    row: Row
    outcome: Outcome
    worker: str | None = None
    labels: tuple[RowLabel, ...] = ()

    @property
    def item_id(self) -> int:
        """The position of the row in its dataset."""
        return self.row.index

    @property
    def error(self) -> str | None:
        """The message of the row's error, None without an error."""
        return self.outcome.error.message if self.outcome.error else None

    @property
    def result(self) -> Result:
        """What the eval function returned; without scores if the row failed."""
        outcome = self.outcome
        return Result(
            *outcome.scores,
            prompt=outcome.prompt,
            model_response=outcome.model_response,
            error=self.error,
            metadata=outcome.metadata,
        )
