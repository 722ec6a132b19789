"""What a report says, before it is HTML or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from doteval.analysis.compare import ChangedRow, Comparison, MetricComparison, Verdict
from doteval.analysis.distributions import LogCounts, ScoreDistribution, Timeline
from doteval.analysis.history import HistoryStep
from doteval.analysis.summary import MetricValue, Summary
from doteval.core.experiments import Counts, Evaluation, Experiment, WorkTime
from doteval.core.provenance import Provenance
from doteval.core.results import ErrorClass
from doteval.store import ExperimentLabels, UsageReport
from doteval.store.comparisons import ComparedPair


class Level(StrEnum):
    """How a check came out: nothing to object, something to know, or a reason not to rely on the figures."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """Something that decides whether the figures can be relied on, as a sentence."""

    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class ShownEvaluation:
    """An evaluation in the table of scores."""

    evaluation: Evaluation
    summary: Summary
    time: WorkTime


@dataclass(frozen=True, slots=True)
class Headline:
    """A metric that the first screen shows."""

    evaluation: str
    score: str
    metric: MetricValue


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The beginning of a text that may be long; `length` is that of all of it."""

    text: str
    length: int

    def cut(self, characters: int) -> str:
        """At most so many characters, and how many there are if these are not all.

        >>> Excerpt("abc", 5_000_000).cut(2)
        'ab … (5,000,000 characters)'
        """
        if self.length <= characters:
            return self.text
        return f"{self.text[:characters]} … ({self.length:,} characters)"


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row of the dataset with what became of it.

    answers: what was answered, with the name of the side or of the field.
    """

    index: int
    sample: int
    heading: str
    prompt: Excerpt | None
    values: tuple[tuple[str, Excerpt], ...]
    answers: tuple[tuple[str, Excerpt], ...]


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Failed rows of one type of error, with its most frequent messages: message, rows, an example row."""

    type: str
    error_class: ErrorClass
    rows: int
    messages: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class FlippedRow:
    """A row that changed, with both answers."""

    change: ChangedRow
    row: ShownRow


@dataclass(frozen=True, slots=True)
class EvaluationDetail:
    """What is shown of one evaluation beside its metrics.

    seconds: how long its rows took; `replies` how long the replies of models; `tokens` what its results took.
    worst: the rows with the lowest values of the score `worst_score`; None if no row has less than the best.
    history: the course of its metrics, by score and metric.
    """

    shown: ShownEvaluation
    scores: tuple[ScoreDistribution, ...]
    seconds: LogCounts
    replies: LogCounts
    tokens: LogCounts
    errors: tuple[ErrorGroup, ...]
    failed: tuple[ShownRow, ...]
    worst_score: str | None
    worst: tuple[ShownRow, ...]
    history: tuple[tuple[str, str, tuple[HistoryStep, ...]], ...]


@dataclass(frozen=True, slots=True)
class Against:
    """The comparison with a baseline.

    names: the baseline and the experiment, as the report calls them.
    pairs: those that are shown; `pairs_left_out` are not.
    flips: for each pair and metric that is shown, the rows that changed most.
    only_here: evaluations that the baseline does not have.
    """

    names: tuple[str, str]
    comparison: Comparison
    pairs: tuple[ComparedPair, ...]
    pairs_left_out: int
    flips: tuple[tuple[ComparedPair, MetricComparison, tuple[FlippedRow, ...]], ...]
    only_here: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        return self.comparison.verdict


@dataclass(frozen=True, slots=True)
class HeldThresholds:
    """The thresholds that the experiment was held against, and which of them it misses, with the figures."""

    asked: tuple[str, ...]
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReportContents:
    """Everything that a report says.

    made_at: by the store's clock. storage: the URL of the store without its password.
    counts: of all evaluations; `evaluations` is their number.
    unfinished: why not every row has a result, in sentences; empty if each has one.
    shown: the evaluations in the table of scores; `left_out` are not.
    details: of some of them, the ones that matter most first.
    price_note: where the prices come from, None if no cost was computed with those of the package.
    """

    experiment: Experiment
    labels: ExperimentLabels
    made_at: datetime
    storage: str
    evaluations: int
    counts: Counts
    unfinished: tuple[str, ...]
    checks: tuple[Check, ...]
    headlines: tuple[Headline, ...]
    shown: tuple[ShownEvaluation, ...]
    left_out: int
    details: tuple[EvaluationDetail, ...]
    against: Against | None
    thresholds: HeldThresholds | None
    usage: UsageReport
    price_note: str | None
    timeline: Timeline | None
    worker_names: dict[int, str]
    commands: Sequence[Provenance]
