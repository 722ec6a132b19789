"""The estimate of `doteval submit --estimate`: a random sample of the rows runs first, and the user decides.

The rows are rows of the experiment like all others; they only run first. Until the user has agreed, the publish cursor
says that the others are held back, so that no process publishes them, also if this one is killed.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from doteval.analysis.estimate import Amount, Sample, UsageEstimate, estimate
from doteval.coordination.claims import somebody_runs
from doteval.coordination.dispatcher import Dispatcher
from doteval.coordination.endings import end_running
from doteval.coordination.publish_cursor import hold_back
from doteval.core import clocks
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus, Experiment
from doteval.core.liveness import BEAT_SECONDS, LATE_AFTER_SECONDS
from doteval.errors import UsageError
from doteval.metrics.intervals import SEED
from doteval.store import RowUsage, Store
from doteval.submission.follow import Following

_FEWEST = 2
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class EstimateOptions:
    """What runs before the user decides.

    rows: of each evaluation. Of one with fewer pending rows, all run.
    agrees: shows the estimate of an experiment; returns whether the other rows are to run.
    """

    rows: int
    agrees: Callable[[Experiment, UsageEstimate], bool]


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The rows that were drawn, and what they had used before.

    units: of `size` rows each, by number. others: how many units were not drawn.
    """

    size: int
    units: tuple[int, ...]
    others: int
    indexes: tuple[int, ...]
    before: Mapping[tuple[int, str], RowUsage]


def hold_back_known(store: Store, known: Sequence[Evaluation]) -> None:
    """Hold back the rows of evaluations that the experiment has already, before they run again.

    A command that was killed a moment ago counts as running until it is late, so this waits as long.

    Raises UsageError: one is running, so that its rows are on their way
    """
    deadline = clocks.monotonic() + LATE_AFTER_SECONDS + BEAT_SECONDS
    for each in known:
        while _is_run(store, each) and clocks.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if _is_run(store, each):
            raise UsageError(
                f"{each.spec.nodeid} is running, and nothing holds back its rows until an estimate is there",
                remedy="Follow it with `doteval watch`, or stop it with `doteval cancel` and submit again.",
            )
    for each in known:
        hold_back(store, each)


def _is_run(store: Store, evaluation: Evaluation) -> bool:
    return somebody_runs(store, store.evaluations.by_uid(evaluation.uid))


class Estimation:
    """Runs the sample of one submission, and lets the other rows run if the user agrees."""

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        following: Following,
        evaluations: Sequence[Evaluation],
        options: EstimateOptions,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._following = following
        self._evaluations = evaluations
        self._options = options

    def run(self) -> bool:
        """Run the sample, then publish the other rows or end the evaluations. Returns whether the other rows run."""
        through_outage = self._following.through_outage
        drawn: dict[str, _Drawn] = {}
        for each in self._running():
            drawn[each.uid] = through_outage(partial(self._draw, each))
            through_outage(partial(self._dispatcher.publish_sample, each, drawn[each.uid].indexes))
        self._following.until(lambda: through_outage(lambda: self._have_ended(drawn)))
        ended = [each for each in self._now() if each.uid in drawn and self._has_run(each, drawn[each.uid])]
        samples = [self._sample(each, drawn[each.uid]) for each in ended]
        if not self._options.agrees(self._evaluations[0].experiment, self._estimate(samples)):
            for each in self._running():
                end_running(self._store, each, Ending.after_estimate())
            return False
        for each in self._running():
            through_outage(partial(self._dispatcher.release, each))
            self._following.publish(each)
        return True

    def _now(self) -> list[Evaluation]:
        """The evaluations of this command as they are now."""
        mine = {each.uid for each in self._evaluations}
        return [each for each in self._following.current() if each.uid in mine]

    def _running(self) -> list[Evaluation]:
        return [each for each in self._now() if each.status is EvaluationStatus.RUNNING]

    def _draw(self, evaluation: Evaluation) -> _Drawn:
        size = evaluation.config.batch_size or 1
        pending = (each.first for each in self._store.rows.pending_ranges(evaluation.id, 1))
        units, others = draw(pending, self._options.rows, size)
        stored = self._store.rows.dataset_state(evaluation.id).rows
        indexes = [index for unit in units for index in range(unit * size, min((unit + 1) * size, stored))]
        return _Drawn(size, units, others, tuple(indexes), self._usage(evaluation, indexes))

    def _usage(self, evaluation: Evaluation, indexes: Sequence[int]) -> dict[tuple[int, str], RowUsage]:
        lines = self._store.samples.usage(evaluation.id, indexes)
        return {(each.row_index, each.model): each for each in lines}

    def _have_ended(self, drawn: Mapping[str, _Drawn]) -> bool:
        return all(self._has_run(each, drawn[each.uid]) for each in self._running() if each.uid in drawn)

    def _has_run(self, evaluation: Evaluation, drawn: _Drawn) -> bool:
        return not self._store.samples.pending(evaluation.id, drawn.indexes)

    def _sample(self, evaluation: Evaluation, drawn: _Drawn) -> Sample:
        times = self._store.samples.times(evaluation.id, drawn.indexes)
        # How long batches take is the provider's choice.
        without = (Amount.BATCH_COST, Amount.SECONDS) if evaluation.config.batch else ()
        amounts = [amount for amount in Amount if amount not in without]
        used = {amount: dict.fromkeys(drawn.units, 0.0) for amount in amounts}
        at_once = self._dispatcher.rows_at_once(evaluation)
        for index, row_times in times.items() if Amount.SECONDS in used else ():
            # The result of each row of a batch has the time of the whole call.
            used[Amount.SECONDS][index // drawn.size] += row_times.seconds / drawn.size / max(1, at_once)
        priced, unpriced = set[Amount](), set[str]()
        for key, after in self._usage(evaluation, drawn.indexes).items():
            unit = after.row_index // drawn.size
            amounts_used = _difference(after, drawn.before.get(key))
            for amount, number in amounts_used.items():
                if number is not None and amount in used:
                    used[amount][unit] += number
                    priced.add(amount)
            if after.unpriced:
                unpriced.add(after.model)
        return Sample(
            {
                amount: list(numbers.values())
                for amount, numbers in used.items()
                if amount in priced or amount not in (Amount.COST, Amount.BATCH_COST)
            },
            units_left=drawn.others,
            rows=sum(each.results for each in times.values()),
            rows_left=evaluation.counts.pending,
            failed=sum(each.failed for each in times.values()),
            at_once=at_once,
            unpriced=frozenset(unpriced),
        )

    def _estimate(self, samples: Sequence[Sample]) -> UsageEstimate:
        one = self._evaluations[0]
        return estimate(samples, budget=one.config.budget, spent=self._store.usage.spent(one.experiment))


def draw(indexes: Iterable[int], rows: int, size: int = 1) -> tuple[tuple[int, ...], int]:
    """Draw at least so many rows at random, in whole units of `size` rows. Returns the units, and the number of others.

    indexes: of the rows to draw from, in ascending order.

    The same rows are drawn every time from the same indexes, so that two models are estimated on the same ones.

    >>> units, others = draw(range(100), 10)
    >>> len(set(units)), others, units == draw(range(100), 10)[0]
    (10, 90, True)
    """
    numbers = random.Random(SEED)  # noqa: S311 - no secret
    count = itertools.count()
    wanted = max(_FEWEST, -(-rows // size))
    units = (unit for unit, _ in itertools.groupby(index // size for index in indexes))
    chosen = heapq.nsmallest(wanted, _numbered(units, numbers, count))
    return tuple(sorted(unit for _, unit in chosen)), next(count) - len(chosen)


def _numbered(units: Iterable[int], numbers: random.Random, count: Iterator[int]) -> Iterator[tuple[float, int]]:
    for unit in units:
        next(count)
        yield numbers.random(), unit


def _difference(after: RowUsage, before: RowUsage | None) -> dict[Amount, float | None]:
    """What the row has used between two moments."""

    def since(name: str) -> float | None:
        now, then = getattr(after, name), None if before is None else getattr(before, name)
        return None if now is None else now - (then or 0)

    names = {
        Amount.REQUESTS: "tries",
        Amount.PROMPT_TOKENS: "prompt_tokens",
        Amount.COMPLETION_TOKENS: "completion_tokens",
        Amount.COST: "cost",
        Amount.BATCH_COST: "batch_cost",
    }
    return {amount: since(name) for amount, name in names.items()}
