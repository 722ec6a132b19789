"""Runs the evaluations that `pytest eval_x.py --experiment NAME` collects, in this process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from doteval.analysis.thresholds import Threshold, check_threshold
from doteval.coordination.endings import end_unrun
from doteval.coordination.provenance import CommandOrigin, record_command
from doteval.core.client_config import configure_clients
from doteval.core.experiments import EvaluationStatus, ephemeral_name
from doteval.core.metering import setup_usage_scope
from doteval.core.results import Usage
from doteval.core.states import EvaluationEnd
from doteval.core.wording import counted, plain
from doteval.local.evaluation import LocalEvaluation, LocalReport, report_on
from doteval.local.options import LocalOptions
from doteval.local.progress import Screen
from doteval.local.store_session import StoreSession
from doteval.pytest_runtime.evaluation_setup import EvaluationSetup
from doteval.pytest_runtime.fingerprint import specify
from doteval.pytest_runtime.items import EvaluationItem, batch_of
from doteval.pytest_runtime.load_timer import Load
from doteval.pytest_runtime.outcomes import ending_of
from doteval.pytest_runtime.pytest_internals import skipped
from doteval.runner.event_loop import LoopThread
from doteval.tracing.commands import command_span

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
        self,
        options: LocalOptions,
        origin: CommandOrigin,
        loop: LoopThread,
        on_message: Callable[[str], None],
        screen: Screen | None = None,
    ) -> None:
        self._options = options
        self._origin = origin
        self._on_message = on_message
        configure_clients(options.client_config)
        self._loop = loop
        self._screen = screen
        self._name = options.target.experiment or ephemeral_name()
        self._opened: dict[str | None, StoreSession] = {}
        self._loaded_for: dict[int, StoreSession] = {}
        # Ends the span of the command, which begins with the first evaluation.
        self._spans = ExitStack()
        self.reports: list[StoredReport] = []
        # The thresholds that applied to some evaluation.
        self.applied_thresholds: set[Threshold] = set()

    def evaluate(self, item: EvaluationItem) -> None:
        """Run the rows of an evaluation that have no result yet, and the failed ones again.

        Errors of rows are stored with them. Fails like a test if a threshold is not met, and skips if every row was
        skipped. How the evaluation ends is stored in any case.

        Raises what `LocalEvaluation.run` raises.
        """
        options = self._options
        session = self._open(item.spec.storage)
        self._check_baseline(session)
        if batch_of(item):
            self._on_message(
                f"{item.evaluation_name} sends its requests live, at their full price: only worker processes send "
                "batches (doteval submit)"
            )
        setup = EvaluationSetup()
        setup.adopt(item)
        evaluation = LocalEvaluation(
            session,
            item,
            specify(item, replace(options.config, traceparent=self._traceparent)),
            setup,
            loop=self._loop,
            options=options,
            on_message=self._on_message,
            screen=self._screen,
        )
        evaluation.spend(setup_usage_scope(evaluation.uid), session.loads.take_unpaid(item))
        try:
            report = evaluation.run(item.path.parent)
        except BaseException:
            self._add(session, evaluation.report_so_far())
            raise
        missed = [*self._missed_thresholds(report), *self._worse_than_baseline(session, report)]
        if missed and report.evaluation.end_cause is EvaluationEnd.PASSED_UNEXPECTEDLY:
            # It did not pass after all: the strict xfail mark is right.
            session.store.evaluations.end(report.evaluation.id, ending_of(item, _failure(missed)))
            report = replace(report, evaluation=session.store.evaluations.by_uid(evaluation.uid))
        self._add(session, report)
        if missed:
            raise _failure(missed)
        if report.evaluation.status is EvaluationStatus.SKIPPED:
            raise skipped(plain(report.evaluation.reason or ""))

    def not_set_up(self, item: EvaluationItem, error: BaseException) -> None:
        """Record how an evaluation ends whose set-up raised `error`: a mark or a fixture skips it, or a fixture fails.

        Raises StoreError if the store cannot be used.
        """
        session = self._open(item.spec.storage)
        ending = ending_of(item, error, otherwise=EvaluationEnd.FIXTURES_FAILED)
        evaluation = end_unrun(session.store, session.experiment, specify(item, self._options.config), ending)
        self._add(session, report_on(session.store, evaluation, resumed=0))

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
        self._spans.close()
        for session in self._opened.values():
            session.close()

    @functools.cached_property
    def _traceparent(self) -> str | None:
        tracing = self._options.client_config.tracing
        # pytest captures the log.
        return self._spans.enter_context(command_span(_SERVICE, self._name, tracing, self._on_message))

    def _add(self, session: StoreSession, report: LocalReport) -> None:
        self.reports.append(StoredReport(report, session.store.url, session.store.raw_url))

    def _missed_thresholds(self, report: LocalReport) -> list[str]:
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
        return failures

    def _check_baseline(self, session: StoreSession) -> None:
        """Raises NotFoundError or UsageError if nothing can be compared with the baseline, before anything is spent."""
        if self._options.baseline is not None:
            from doteval.store.comparisons import check_baseline

            check_baseline(session.store, self._options.baseline, self._name)

    def _worse_than_baseline(self, session: StoreSession, report: LocalReport) -> list[str]:
        baseline = self._options.baseline
        if baseline is None:
            return []
        from doteval.store.comparisons import ComparisonOptions, check_not_worse

        options = ComparisonOptions(max_drop=self._options.max_drop)
        check = check_not_worse(session.store, baseline, [report.evaluation], options)
        return [missed.message for missed in check.missed]

    def _of_load(self, load: Load) -> StoreSession:
        return self._open(load.evaluation.spec.storage if load.evaluation is not None else None)

    def _open(self, own: str | None) -> StoreSession:
        """The store of an evaluation: `own` is the one that its decorator names."""
        storage = own or self._options.target.storage
        if storage not in self._opened:
            session = self._opened[storage] = StoreSession(storage, self._name, service=_SERVICE)
            target = self._options.target
            record_command(session.store, session.experiment, self._origin, tags=target.tag, note=target.note)
        return self._opened[storage]


def _failure(messages: list[str]) -> BaseException:
    return pytest.fail.Exception(plain("\n".join(messages)), pytrace=False)
