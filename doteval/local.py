"""Evaluating here: what `pytest eval_x.py --experiment NAME` does with the evaluations it collects."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from doteval import __version__
from doteval.datasets import open_dataset
from doteval.errors import DotEvalError
from doteval.execution.calls import CallPolicy
from doteval.execution.conductor import Assignment, Conductor
from doteval.execution.event_loop import LoopThread
from doteval.execution.fingerprint import specify
from doteval.execution.items import EvaluationItem
from doteval.execution.loads import Load
from doteval.execution.stage import Stage
from doteval.experiments import Counts, Evaluation, EvaluationStatus, ephemeral_name
from doteval.intake import take_in
from doteval.load_recorder import LoadRecorder
from doteval.results import Outcome, Row
from doteval.settings import load_settings
from doteval.store import GroupWriter, NewResult, Store, WorkerInfo
from doteval.summary import Summary, summarize

_RANGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What pytest's command line said. `samples` is how many rows of each dataset to run."""

    experiment: str | None = None
    storage: str | None = None
    samples: int | None = None
    concurrency: int | None = None
    policy: CallPolicy = field(default_factory=CallPolicy)
    allow_changed: bool = False


def local_options(config: pytest.Config) -> LocalOptions:
    """The options of pytest's command line, completed from [tool.doteval] and DOTEVAL_*.

    Raises pytest.UsageError.
    """
    concurrent = config.getoption("concurrent")
    try:
        settings = load_settings(
            storage=config.getoption("storage"), concurrency=None if concurrent in (None, "auto") else concurrent
        )
    except DotEvalError as error:
        raise pytest.UsageError(str(error)) from error
    return LocalOptions(
        experiment=config.getoption("experiment"),
        storage=settings.storage,
        samples=config.getoption("samples"),
        concurrency=settings.concurrency,
        policy=CallPolicy(
            config.getoption("max_retries"), config.getoption("retry_delay"), config.getoption("row_timeout")
        ),
        allow_changed=config.getoption("allow_changed"),
    )


@dataclass(frozen=True, slots=True)
class LocalReport:
    """How one evaluation went. `resumed` is how many of its rows were done before."""

    evaluation: Evaluation
    summary: Summary
    resumed: int


class LocalExperiment:
    """Runs evaluations in this process, one after the other, as pytest comes to them.

    The store is opened when it is first needed, so that a pytest run without evaluations leaves no
    trace. Is a `LoadObserver` too.
    """

    def __init__(self, options: LocalOptions, loop: LoopThread) -> None:
        self._options = options
        self._loop = loop
        self._opened: _Opened | None = None
        self.reports: list[LocalReport] = []

    @property
    def storage(self) -> str | None:
        """The store's URL for people, None if no evaluation has run."""
        return self._opened.store.url if self._opened else None

    @property
    def experiment_name(self) -> str | None:
        return self.reports[0].evaluation.experiment.name if self.reports else None

    def evaluate(self, item: EvaluationItem) -> None:
        """Run the rows of an evaluation that have no result yet, and the failed ones again.

        Raises what `take_in` and the store raise; what rows raise is stored with them.
        """
        opened = self._open()
        store = opened.store
        evaluation = store.evaluations.begin(
            opened.experiment, specify(item), allow_changed=self._options.allow_changed
        )
        store.rows.retry_failed(evaluation.id)
        resumed = store.evaluations.counts(evaluation.id).finished
        stage = Stage()
        stage.adopt(item)
        policy = self._options.policy
        if isinstance(item.spec.retries, int):
            policy = replace(policy, retries=item.spec.retries)
        conductor = Conductor(stage, self._loop, policy=policy, concurrency=self._options.concurrency)
        cut: list[BaseException | None] = []

        def record(row: Row, outcome: Outcome) -> None:
            opened.writer.put(NewResult(evaluation.id, row, outcome), cut.append)

        conductor.work_off(Assignment(item, self._pending_rows(item, evaluation), record, cut.append))
        opened.writer.flush()
        for error in cut:
            if error is not None:
                raise error
        self._complete(evaluation, resumed)

    def loaded(self, load: Load) -> None:
        self._open().loads.loaded(load)

    def load_failed(self, load: Load) -> None:
        self._open().loads.load_failed(load)

    def unloading(self, load: Load) -> None:
        self._open().loads.unloading(load)

    def close(self) -> None:
        """Store what is left and close the store."""
        if self._opened is not None:
            self._opened.writer.close()
            self._opened.store.workers.end(self._opened.worker_id, reason="left")
            self._opened.store.close()

    def _pending_rows(self, item: EvaluationItem, evaluation: Evaluation) -> Iterator[Row]:
        store = self._open().store
        dataset = open_dataset(item.spec.dataset, base=item.path.parent)
        samples = self._options.samples
        seen = -1
        for chunk in take_in(store, evaluation, dataset, samples=samples, allow_changed=self._options.allow_changed):
            if chunk.new:
                yield from chunk.rows
            else:
                yield from store.rows.pending(evaluation.id, chunk.first, chunk.last)
            seen = chunk.last
        # Rows that are in the store already, when the dataset need not be read again.
        for part in store.rows.pending_ranges(evaluation.id, _RANGE_ROWS, first=seen + 1):
            if samples is None or part.first < samples:
                last = part.last if samples is None else min(part.last, samples - 1)
                yield from store.rows.pending(evaluation.id, part.first, last)

    def _complete(self, evaluation: Evaluation, resumed: int) -> None:
        store = self._open().store
        counts: Counts = store.evaluations.counts(evaluation.id)
        if not counts.pending:
            store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
        summary = summarize(store.results.score_columns(evaluation.id), counts)
        self.reports.append(LocalReport(store.evaluations.by_uid(evaluation.uid), summary, resumed))

    def _open(self) -> _Opened:
        if self._opened is None:
            self._opened = _Opened(self._options)
        return self._opened


class _Opened:
    """The store and what writes to it, for as long as pytest runs."""

    def __init__(self, options: LocalOptions) -> None:
        self.store = Store.open(options.storage)
        self.experiment = self.store.experiments.begin(options.experiment or ephemeral_name())
        self.worker_id = self.store.workers.begin(
            WorkerInfo("pytest", socket.gethostname(), os.getpid(), (), 1, {"doteval": __version__})
        )
        self.writer = GroupWriter(self.store, self.worker_id)
        self.loads = LoadRecorder(self.store, self.worker_id)
