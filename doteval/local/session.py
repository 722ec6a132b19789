"""Runs the evaluations that `pytest eval_x.py --experiment NAME` collects, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from doteval.analysis.thresholds import Threshold, check_threshold
from doteval.core.client_config import configure_clients
from doteval.core.experiments import ephemeral_name
from doteval.core.metering import setup_usage_scope
from doteval.core.results import Usage
from doteval.core.wording import counted, plain
from doteval.local.evaluation import LocalEvaluation, LocalReport
from doteval.local.options import LocalOptions
from doteval.local.progress import Screen
from doteval.local.store_session import StoreSession
from doteval.pytest_runtime.evaluation_setup import EvaluationSetup
from doteval.pytest_runtime.fingerprint import specify
from doteval.pytest_runtime.items import EvaluationItem
from doteval.pytest_runtime.load_timer import Load
from doteval.pytest_runtime.pytest_internals import skipped
from doteval.runner.event_loop import LoopThread

_SERVICE = "pytest"


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report, and the URL of its store: `storage` is for display, `raw_url` has the password."""

    report: LocalReport
    storage: str
    raw_url: str


class LocalExperiment:
    """Runs evaluations in this process, one after the other, as pytest reaches them.

    A store is opened when it is first needed, so that a pytest run without evaluations leaves no trace. `on_message` is
    called with lines for the user. It is also the `LoadObserver` of session fixtures.
    """

    def __init__(
        self, options: LocalOptions, loop: LoopThread, on_message: Callable[[str], None], screen: Screen | None = None
    ) -> None:
        self._options = options
        self._on_message = on_message
        configure_clients(options.client_config)
        self._loop = loop
        self._screen = screen
        self._name = options.target.experiment or ephemeral_name()
        self._opened: dict[str | None, StoreSession] = {}
        self._loaded_for: dict[int, StoreSession] = {}
        self.reports: list[StoredReport] = []
        # The thresholds that applied to some evaluation.
        self.applied_thresholds: set[Threshold] = set()

    def evaluate(self, item: EvaluationItem) -> None:
        """Run the rows of an evaluation that have no result yet, and the failed ones again.

        Errors of rows are stored with them. Fails like a test if a threshold is not met, and skips if every row was
        skipped.

        Raises what `LocalEvaluation.run` raises.
        """
        options = self._options
        session = self._open(item.spec.storage)
        setup = EvaluationSetup()
        setup.adopt(item)
        evaluation = LocalEvaluation(
            session,
            item,
            specify(item, self._options.config),
            setup,
            loop=self._loop,
            options=options,
            on_message=self._on_message,
            screen=self._screen,
        )
        evaluation.spend(setup_usage_scope(evaluation.uid), session.loads.take_unpaid(item))
        try:
            report = evaluation.run(item.path.parent)
        except KeyboardInterrupt:
            self.reports.append(StoredReport(evaluation.report_so_far(), session.store.url, session.store.raw_url))
            raise
        self.reports.append(StoredReport(report, session.store.url, session.store.raw_url))
        self._check_thresholds(report)
        counts = report.evaluation.counts
        if counts.skipped and not counts.done and not counts.failed:
            rows = "the only row was" if counts.skipped == 1 else f"all {counts.skipped:,} rows were"
            raise skipped(plain(f"{rows} skipped: {evaluation.skip_reason()}"))

    def loaded(self, load: Load) -> None:
        session = self._loaded_for[id(load)] = self._of_load(load)
        session.loads.loaded(load)

    def load_failed(self, load: Load) -> None:
        self._of_load(load).loads.load_failed(load)

    def unloading(self, load: Load) -> None:
        self._loaded_for.pop(id(load)).loads.unloading(load)

    def used(self, definition: object, evaluation: EvaluationItem | None, usage: tuple[Usage, ...]) -> None:
        self._open(evaluation.spec.storage if evaluation is not None else None).loads.used(
            definition, evaluation, usage
        )

    def close(self) -> None:
        """Store what is left and close the stores."""
        for session in self._opened.values():
            session.close()

    def _check_thresholds(self, report: LocalReport) -> None:
        counts, most = report.evaluation.counts, self._options.max_errors
        failures = []
        if most is not None and counts.failed > most:
            rows = counted(counts.failed, "row has", "rows have")
            left = ", and the evaluation was stopped" if report.stopped else ""
            failures.append(f"{rows} failed, more than the {most} of --max-errors{left}")
        if report.evaluation.stopped_at_budget:
            rows = counted(counts.pending, "row is", "rows are")
            failures.append(f"{report.evaluation.reason}; {rows} pending")
        for threshold in self._options.thresholds:
            check = check_threshold(threshold, report.evaluation.name, report.summary)
            if check.applies:
                self.applied_thresholds.add(threshold)
            if check.failure is not None:
                failures.append(check.failure)
        if failures:
            pytest.fail(plain("\n".join(failures)), pytrace=False)

    def _of_load(self, load: Load) -> StoreSession:
        return self._open(load.evaluation.spec.storage if load.evaluation is not None else None)

    def _open(self, own: str | None) -> StoreSession:
        """The store of an evaluation: `own` is the one that its decorator names."""
        storage = own or self._options.target.storage
        if storage not in self._opened:
            self._opened[storage] = StoreSession(storage, self._name, service=_SERVICE)
        return self._opened[storage]
