"""Metrics of the result store and the queues, for Prometheus.

All of them are read from the store when Prometheus asks: a restart loses nothing, and any number of exporters report
the same. Only evaluations that run, or ended within `recent` seconds, are included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from doteval.core import clocks
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.core.results import Usage
from doteval.errors import BrokerError
from doteval.store import Store, UsageReport

# Usage is summed over every call to a model. Frequent requests must cost the store at most this share of its time: a
# sum that took 1 s is kept for 20 s.
_USAGE_SHARE = 1 / 20
# Most different errors of one evaluation that are counted by class.
_MOST_ERRORS = 10_000
_EVALUATION = ["experiment", "evaluation"]


class Depth(Protocol):
    """Counts queued messages: a part of `doteval.broker.publisher.Publisher`."""

    def queued(self, *, queue: str) -> int: ...


class StoreFigures(Collector):
    """Collects metrics from the store, and the depth of queues if a broker is given and available.

    queues: queues to report in addition to those of the evaluations
    recent: seconds for which evaluations that ended are included
    clock: seconds that only ever grow
    """

    def __init__(
        self,
        store: Store,
        queue: Depth | None = None,
        *,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        recent: float = 3600.0,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._store = store
        self._queue = queue
        self._queues = queues
        self._recent = recent
        self._clock = clock
        # By experiment: what it used, and when that is to be read again.
        self._usage: dict[int, tuple[float, UsageReport]] = {}

    def describe(self) -> Iterable[Metric]:
        # Registering a collector must not read the store.
        return []

    def collect(self) -> Iterator[Metric]:
        evaluations = self._store.evaluations.current(self._recent)
        yield from self._rows(evaluations)
        yield self._errors(evaluations)
        yield from self._workers()
        yield from self._used({evaluation.experiment.id: evaluation.experiment for evaluation in evaluations})
        if self._queue is not None:
            queues = dict.fromkeys(
                [
                    *self._queues,
                    *(each.queue for each in evaluations if each.queue and not each.is_private),
                ]
            )
            yield from self._queued(self._queue, queues)

    def _rows(self, evaluations: list[Evaluation]) -> Iterator[Metric]:
        rows = GaugeMetricFamily(
            "doteval_rows", "Rows by status; pending are those of running evaluations.", labels=[*_EVALUATION, "status"]
        )
        running = GaugeMetricFamily("doteval_evaluations", "Evaluations by status.", labels=["status"])
        age = GaugeMetricFamily(
            "doteval_oldest_pending_seconds",
            "How long the oldest running evaluation that has pending rows has been there.",
        )
        for evaluation in evaluations:
            counts = evaluation.counts
            numbers = {"done": counts.done, "failed": counts.failed, "skipped": counts.skipped}
            if counts.total is not None:
                # Pending rows of a cancelled evaluation wait for nothing, and must not raise an alert.
                numbers["pending"] = counts.pending if evaluation.status is EvaluationStatus.RUNNING else 0
            for status, number in numbers.items():
                rows.add_metric([*_labels(evaluation), status], number)
        for status, number in Counter(evaluation.status for evaluation in evaluations).items():
            running.add_metric([status.value], number)
        begun = [
            evaluation.created_at
            for evaluation in evaluations
            if evaluation.status is EvaluationStatus.RUNNING and evaluation.counts.pending
        ]
        age.add_metric([], max(0.0, (clocks.utc_now() - min(begun)).total_seconds()) if begun else 0.0)
        yield from (rows, running, age)

    def _errors(self, evaluations: list[Evaluation]) -> Metric:
        family = GaugeMetricFamily("doteval_errors", "Failed rows by class of error.", labels=[*_EVALUATION, "class"])
        for evaluation in evaluations:
            by_class: Counter[str] = Counter()
            if evaluation.counts.failed:
                for error in self._store.results.errors(evaluation.id, _MOST_ERRORS):
                    by_class[error.error_class.value] += error.count
            for error_class, number in by_class.items():
                family.add_metric([*_labels(evaluation), error_class], number)
        return family

    def _workers(self) -> Iterator[Metric]:
        processes = GaugeMetricFamily("doteval_worker_processes", "Live worker processes.", labels=["queue", "state"])
        held = GaugeMetricFamily("doteval_rows_held", "Rows that worker processes have taken from the queue.")
        live = self._store.workers.live()
        states = Counter((queue, worker.state) for worker in live for queue in worker.info.queues)
        for (queue, state), number in states.items():
            processes.add_metric([queue, state], number)
        held.add_metric([], sum(part.rows for worker in live for part in worker.holding))
        yield from (processes, held)

    def _used(self, experiments: dict[int, Experiment]) -> Iterator[Metric]:
        labels = ["experiment", "model"]
        families = {
            "requests": GaugeMetricFamily("doteval_model_requests", "Calls to models.", labels=labels),
            "attempts": GaugeMetricFamily("doteval_model_attempts", "Requests that went out.", labels=labels),
            "cache_hits": GaugeMetricFamily("doteval_cache_hits", "Answers from a cache.", labels=labels),
            "cache_misses": GaugeMetricFamily("doteval_cache_misses", "Answers not in a cache.", labels=labels),
            "waited": GaugeMetricFamily(
                "doteval_limit_wait_seconds", "Seconds spent waiting for limits.", labels=labels
            ),
            "cost": GaugeMetricFamily("doteval_cost_dollars", "What all calls cost, redone ones too.", labels=labels),
        }
        tokens = GaugeMetricFamily("doteval_tokens", "Tokens of all calls, by direction.", labels=[*labels, "kind"])
        loads = GaugeMetricFamily("doteval_loads", "Set-ups of session fixtures.", labels=["experiment", "fixture"])
        seconds = GaugeMetricFamily(
            "doteval_load_seconds", "Seconds that set-ups of session fixtures took.", labels=["experiment", "fixture"]
        )
        for experiment in experiments.values():
            report = self._report(experiment)
            by_model: dict[str, Usage] = {}
            for model in report.models:
                # Marks are no labels: series of earlier releases go on.
                by_model[model.spent.model] = by_model.get(model.spent.model, Usage(model.spent.model)) + model.spent
            for spent in by_model.values():
                for name, family in families.items():
                    family.add_metric([experiment.name, spent.model], getattr(spent, name) or 0)
                tokens.add_metric([experiment.name, spent.model, "prompt"], spent.prompt_tokens)
                tokens.add_metric([experiment.name, spent.model, "completion"], spent.completion_tokens)
            for load in report.loads:
                loads.add_metric([experiment.name, load.fixture], load.loads)
                seconds.add_metric([experiment.name, load.fixture], load.load_seconds)
        self._usage = {key: kept for key, kept in self._usage.items() if key in experiments}
        yield from (*families.values(), tokens, loads, seconds)

    def _report(self, experiment: Experiment) -> UsageReport:
        due, report = self._usage.get(experiment.id, (0.0, None))
        began = self._clock()
        if report is None or began >= due:
            report = self._store.usage.report(experiment)
            now = self._clock()
            self._usage[experiment.id] = now + (now - began) / _USAGE_SHARE, report
        return report

    def _queued(self, broker: Depth, queues: Iterable[str]) -> Iterator[Metric]:
        depth = GaugeMetricFamily("doteval_queued_row_tasks", "Row tasks that wait in the queue.", labels=["queue"])
        reached = GaugeMetricFamily("doteval_broker_up", "Whether the broker can be reached.")
        try:
            for queue in queues:
                depth.add_metric([queue], broker.queued(queue=queue))
            reached.add_metric([], 1)
        except BrokerError:
            # No depth at all, which differs from zero. The metrics of the store are still right.
            reached.add_metric([], 0)
        yield from (depth, reached)


def _labels(evaluation: Evaluation) -> list[str]:
    return [evaluation.experiment.name, evaluation.spec.nodeid]
