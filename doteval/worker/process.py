"""A worker process: one embedded pytest session, one copy of every session fixture, one writer."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import logging
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from celery.worker import state

from doteval.broker.messages import RowTask
from doteval.broker.publisher import Publisher
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.coordination.fixture_load_recorder import LoadRecorder
from doteval.coordination.heartbeat import Heartbeat
from doteval.coordination.outage_retry import retry_through_outage
from doteval.core.client_config import configure_clients
from doteval.core.exit_codes import RECYCLED, UNEXPECTED
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.liveness import BEAT_SECONDS, DISPATCH_SECONDS, is_orphaned
from doteval.core.log_format import IDS
from doteval.core.metering import Meter, Place, observe_usage, set_up_place
from doteval.core.queues_and_devices import DEVICES_VARIABLE
from doteval.core.results import Outcome, Usage
from doteval.errors import (
    CodeMismatchError,
    DotEvalError,
    EvaluationFileError,
    NotFoundError,
    RowTimeoutError,
    StoreError,
)
from doteval.monitoring import process_figures
from doteval.pytest_plugin import loop_key
from doteval.pytest_runtime.embedded_session import Collected, with_collected
from doteval.pytest_runtime.evaluation_setup import EvaluationSetup, load_session_fixtures
from doteval.pytest_runtime.fixture_watchdog import FixtureWatchdog
from doteval.pytest_runtime.items import EvaluationItem, served_items
from doteval.pytest_runtime.load_timer import LoadTimer
from doteval.runner.assignments import Assignment, LoadFailedError, WindingDownError
from doteval.runner.calls import CallPolicy
from doteval.runner.scheduler import Scheduler
from doteval.settings import load_settings
from doteval.store import GroupWriter, HeldRange, LostUsage, Store, WorkerInfo
from doteval.supervision.inflight_journal import InflightJournal
from doteval.supervision.usage_journal import UsageJournal
from doteval.supervision.worker_config import WorkerOptions
from doteval.worker.budget_guards import Gates
from doteval.worker.code_match import CodeMatch
from doteval.worker.completion import Landing
from doteval.worker.errors import EndedError, GiveBackError
from doteval.worker.held_tasks import HeldTasks
from doteval.worker.journals import open_journals
from doteval.worker.prefetch import Lot, Prefetch
from doteval.worker.priority_pool import in_hand
from doteval.worker.recycling import Recycling

Value = TypeVar("Value")

# Seconds for which what the store said of a running evaluation is good enough for the next row task.
_GOOD_SECONDS = 0.25

logger = logging.getLogger("doteval.worker")


class WorkerProcess:
    """Runs row tasks. `start` loads the session fixtures; `finish` tears them down."""

    def __init__(self, options: WorkerOptions, hostname: str) -> None:
        self._options = options
        self._hostname = hostname
        self._state = "loading"
        self._ready = threading.Event()
        self._leaving = threading.Event()
        self._failure: BaseException | None = None
        self._assigned: dict[Assignment, str] = {}
        self._code_match = CodeMatch(options.paths)
        # By uid: until when what the store said of a running evaluation is good, and what it said.
        self._looked_up: dict[str, tuple[float, Evaluation]] = {}
        self._inflight_journal: InflightJournal | None = None
        self._spending: UsageJournal | None = None
        self._store: Store | None = None
        self._scheduler: Scheduler | None = None
        self._thread = threading.Thread(target=self._serve, name="doteval-session", daemon=True)
        self._teardown_seconds = load_settings().teardown_timeout
        self._fixture_watchdog = FixtureWatchdog(self._thread, self._teardown_seconds)
        self._finished = False
        # The rows that it has in hand, by which it asks for more.
        self.prefetch = Prefetch()
        self._recycling = Recycling(options.max_rows, options.max_memory)
        self._stored = 0
        # Why this process leaves of its own accord, None while it does not.
        self.recycled: str | None = None

    def start(self) -> None:
        """Open the logs and the store, collect, load the session fixtures.

        Raises WorkerError, StoreError or EvaluationFileError if that is not possible. A fixture that cannot be
        loaded is no error here: it is recorded, and evaluations that do not need it are served.
        """
        self._inflight_journal, self._spending = open_journals(self._options.journals)
        configure_clients(self._options.client_config)
        if self._spending is not None:
            observe_usage(self._spending.spent)
        store = self._store = Store.open(self._options.storage)
        self._worker_id = store.workers.begin(
            WorkerInfo(
                service=self._hostname,
                hostname=socket.gethostname(),
                pid=os.getpid(),
                queues=self._options.queues,
                concurrency=self._options.concurrency or 0,
                versions=_versions(),
                device=os.environ.get(DEVICES_VARIABLE),
            )
        )
        self._loads = LoadRecorder(store, self._worker_id)
        # What others believe is in its hands they do not publish again, should it be pending once more: a retry.
        self._held_tasks = HeldTasks(
            self._worker_id,
            patiently=self._patiently,
            leaving=self._leaving,
            on_empty=lambda: self._heartbeat.soon(self._beat),
        )
        self._writer = GroupWriter(store, self._worker_id, on_commit=process_figures.count_commit)
        self._gates = Gates(store, self._writer, patiently=self._patiently, leaving=self._leaving)
        self._publisher = Publisher(self._options.broker, self._options.queues[0], self._options.visibility_timeout)
        self._dispatcher = Dispatcher(store, self._publisher, DispatchOptions(slots=self._options.slots))
        self._heartbeat = Heartbeat(
            (
                (BEAT_SECONDS, self._beat),
                (BEAT_SECONDS, self._watch_memory),
                (BEAT_SECONDS, self._check_fixture_watchdog),
                (DISPATCH_SECONDS, self._dispatch),
                (max(BEAT_SECONDS, self._options.visibility_timeout / 4), self._renew),
            ),
            parent=self._options.parent,
        )
        self._beat()
        self._heartbeat.start()
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        if not self._leaving.is_set():
            self._state = "ready"
        self._beat()

    @property
    def is_leaving(self) -> bool:
        """Whether this process was asked to leave."""
        return self._leaving.is_set()

    def leave_soon(self) -> None:
        """Remember that this process was asked to leave. Safe in a signal handler."""
        self._leaving.set()

    def wind_down(self) -> None:
        """Begin no further row. Safe in a signal handler."""
        self._leaving.set()
        self._state = "draining"
        if self._scheduler is not None:
            self._scheduler.wind_down()

    def finish(self, reason: str) -> None:
        """Let the rows in flight end and be stored, tear the session fixtures down, and leave."""
        if self._finished:
            return
        self._finished = True
        self.wind_down()
        if self._thread.is_alive():
            self._thread.join()
        if self._store is None or not hasattr(self, "_heartbeat"):
            return
        self._heartbeat.stop()
        self._writer.close()
        self._publisher.close()
        try:
            self._store.workers.end(self._worker_id, reason=reason)
        except StoreError as error:
            # Its silence will tell.
            logger.warning("the end of this worker process cannot be recorded: %s", error.message)
        self._store.close()

    def run_rows(self, task: RowTask, lease: str | None = None, *, redelivered: bool = False) -> str:
        """Run the pending rows of a range, and return when their results are stored.

        `lease` is the tag by which the broker knows the message: it is renewed until then. A
        `redelivered` message is dropped if its rows are in good hands.

        Raises GiveBackError if this process leaves before they all ran.
        """
        if redelivered and self._held_tasks.are_good(task):
            return "dropped: a live worker process has these rows in hand"
        with (
            self._held_tasks.hold(task, lease),
            self.prefetch.lot(task.evaluation_uid, task.last - task.first + 1) as lot,
        ):
            return self._run_held(task, lot)

    def _run_held(self, task: RowTask, lot: Lot) -> str:
        assert self._store is not None
        assert self._scheduler is not None
        try:
            evaluation = self._evaluation(task.evaluation_uid)
        except NotFoundError:
            return f"dropped: the store {self._store.url} has no such evaluation"
        if evaluation.status in (EvaluationStatus.CANCELLED, EvaluationStatus.FAILED):
            return f"dropped: the evaluation is {evaluation.status}"
        try:
            item = self._code_match.match(evaluation)
        except CodeMismatchError as error:
            self._loads.refused(evaluation.id, error.message)
            raise self._refuse(evaluation, error) from error
        self._pay_for_set_up(evaluation, item)
        gate = self._gates.of(evaluation)
        if gate is not None and (refusal := gate.refusal()) is not None:
            if isinstance(refusal, EndedError):
                return f"dropped: {refusal}"
            raise refusal
        rows = self._patiently(lambda store: store.rows.pending(evaluation.id, task.first, task.last))
        if not rows:
            return "0 rows: all done before"
        lot.holds(len(rows), self._scheduler.rows_at_once(item))
        suspects = self._patiently(lambda store: store.crashes.suspects(evaluation.id, task.first, task.last))
        calm = [row for row in rows if (row.index, row.sample) not in suspects]
        suspected = [row for row in rows if (row.index, row.sample) in suspects]
        landing = Landing(
            evaluation, self._writer, self._count_stored, self._spending, lot, parts=2 if calm and suspected else 1
        )
        policy = CallPolicy.from_config(evaluation.config)
        note = None if self._inflight_journal is None else functools.partial(self._inflight_journal.note, evaluation.id)
        # A row that may have killed a process runs alone, so that no other is blamed for it.
        assignments = [
            Assignment(
                item,
                iter(part),
                landing.record,
                landing.ended,
                note,
                alone,
                policy,
                evaluation.uid,
                gate,
                evaluation.config.cache,
                self._spend,
            )
            for part, alone in ((calm, False), (suspected, True))
            if part
        ]
        self._assigned.update(dict.fromkeys(assignments, evaluation.uid))
        try:
            for assignment in assignments:
                self._scheduler.assign(assignment)
            cut = landing.wait()
        finally:
            for assignment in assignments:
                del self._assigned[assignment]
        if isinstance(cut, EndedError):
            return f"dropped: {cut}; {landing.summary()} before"
        if isinstance(cut, LoadFailedError):
            self._loads.failed_for(evaluation.id, cut)
            raise self._refuse(evaluation, cut) from cut
        if isinstance(cut, WindingDownError):
            raise GiveBackError(f"leaving; {landing.summary()}") from cut
        if cut is not None:
            raise cut
        return landing.summary()

    def _pay_for_set_up(self, evaluation: Evaluation, item: EvaluationItem) -> None:
        """Have the first evaluation that needs them pay for fixtures that were loaded before there were any rows."""
        meter = Meter(set_up_place(evaluation.uid))
        for usage in self._loads.take_unpaid(item):
            meter.add(usage)
        if meter.place is not None:
            self._spend(meter.place, meter.reading())

    def _spend(self, place: Place, used: tuple[Usage, ...]) -> None:
        """Store what was used for no result. What cannot be stored now is when this process has left."""
        assert self._store is not None
        if not used:
            return
        try:
            lost = LostUsage(place.evaluation, place.index, place.sample, used)
            self._store.usage.add_lost([lost], socket.gethostname(), os.getpid())
        except StoreError as error:
            logger.warning("what the set-up of fixtures has used is not stored yet: %s", error.message)
        else:
            if self._spending is not None:
                self._spending.stored(place)

    def _evaluation(self, uid: str) -> Evaluation:
        """An evaluation as it stands, or stood a moment ago. What ends it is heard of by the heartbeat too.

        Raises NotFoundError if there is none.
        """
        known = self._looked_up.get(uid)
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        evaluation = self._patiently(lambda store: store.evaluations.by_uid(uid))
        if evaluation.status is EvaluationStatus.RUNNING:
            self._looked_up[uid] = time.monotonic() + _GOOD_SECONDS, evaluation
        return evaluation

    def _count_stored(self, outcome: Outcome) -> None:
        process_figures.count_stored(outcome)
        # On the writer's thread only.
        self._stored += 1
        self._recycle_if_due(self._recycling.after_row(self._stored))

    def _recycle_if_due(self, reason: str | None) -> None:
        """Make room for a fresh process: rows in flight end, the others are given back."""
        if reason is None or self._leaving.is_set():
            return
        self.recycled = reason
        self.wind_down()
        # Celery's own way out, as after SIGTERM, but with an exit code of ours.
        state.should_stop = RECYCLED

    def _patiently(self, read: Callable[[Store], Value]) -> Value:
        """Read from the store, as soon as it is there. Raises GiveBackError if this process leaves first."""
        store = self._store
        assert store is not None
        try:
            return retry_through_outage(lambda: read(store), leaving=self._leaving, on_message=logger.warning)
        except StoreError as error:
            raise GiveBackError(error.message) from error

    def ids(self, evaluation_uid: str, first: int, last: int) -> dict[str, dict[str, object]]:
        """What log lines about a row task carry."""
        ids: dict[str, object] = {"evaluation_id": evaluation_uid, "first_row": first, "last_row": last}
        known = self._code_match.known(evaluation_uid)
        if known is not None:
            ids |= {"experiment": known.experiment.name, "evaluation": known.spec.nodeid}
        return {IDS: ids}

    def _refuse(self, evaluation: Evaluation, error: Exception) -> GiveBackError:
        """What to do with a task that this process cannot run: give it back, and leave.

        Unless no worker process can run it: then the evaluation has just come to its end, and the
        task is given back only to be dropped.
        """
        settled = self._dispatcher.settle(evaluation)
        if settled.status is EvaluationStatus.RUNNING:
            self.wind_down()
            _ask_to_leave()
        return GiveBackError(str(error))

    def _serve(self) -> None:
        """The session thread: collect, load, run rows, tear down."""
        try:
            with_collected(
                self._options.paths,
                self._serve_collected,
                keyword=self._options.keyword,
                root=self._options.root,
                plugins=[LoadTimer(self._loads)],
            )
        except BaseException as error:
            if self._ready.is_set():
                logger.exception("the embedded pytest session ended with an error")
                # Nobody would run the rows of the tasks that it goes on taking.
                _ask_to_leave()
            self._failure = error if isinstance(error, DotEvalError) else _unexpected(error)
        finally:
            self._ready.set()

    def _serve_collected(self, collected: Collected) -> None:
        self._code_match.add(collected.items)
        setup = EvaluationSetup()
        options = self._options
        self._scheduler = Scheduler(
            setup,
            collected.config.stash[loop_key],
            concurrency=options.concurrency,
        )
        # Those of others are loaded with the first row, if one should come after all.
        for failure in load_session_fixtures(served_items(collected.items, options.queue_names)):
            logger.warning("cannot load the session fixtures of %s", failure)
        # Models stay too. And rows make thousands of objects at a time, few of them cycles.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        # The writer asks for the interpreter after every line that it inserts; the thread that runs rows would
        # keep it for 5 ms each time.
        sys.setswitchinterval(0.0005)
        self._ready.set()
        if self._leaving.is_set():
            self._scheduler.wind_down()
        self._scheduler.serve()
        self._fixture_watchdog.closing()
        setup.close()

    def _beat(self) -> None:
        assert self._store is not None
        # What waits for a thread is held too: nobody else has it.
        waiting = [HeldRange(task.evaluation_uid, task.first, task.last) for task in in_hand()]
        holding = dict.fromkeys([*self._held_tasks.ranges(), *waiting])
        self._store.workers.beat(self._worker_id, state=self._state, holding=list(holding))
        if self._scheduler is not None:
            self._scheduler.post(self._loads.snapshot)
            begun = 0 if self._inflight_journal is None else self._inflight_journal.in_flight
            process_figures.tell_in_flight(min(begun, self._scheduler.rows_at_once()))
            self._withdraw_ended(self._scheduler)

    def _withdraw_ended(self, scheduler: Scheduler) -> None:
        """Begin no further row of evaluations that were cancelled, or deleted, since their rows were assigned."""
        assert self._store is not None
        assigned = self._assigned.copy()
        if not assigned:
            return
        statuses = self._store.evaluations.statuses(set(assigned.values()))
        for assignment, uid in assigned.items():
            status = statuses.get(uid)
            if status is not EvaluationStatus.RUNNING and not assignment.withdrawn:
                why = "was deleted" if status is None else f"is {status}"
                scheduler.withdraw(assignment, EndedError(f"the evaluation {why}"))

    def _watch_memory(self) -> None:
        # One that has stored nothing yet would be followed by another that stores nothing.
        if self._stored:
            self._recycle_if_due(self._recycling.after_beat())

    def _check_fixture_watchdog(self) -> None:
        """Leave without a teardown that does not end, once everything that was computed is stored."""
        if is_orphaned(self._options.parent) and not self._ready.is_set():
            # The service is gone, and nobody else would ever end what does not load.
            self._fixture_watchdog.closing("the load of the session fixtures")
        what = self._fixture_watchdog.overdue()
        if what is None:
            return
        assert self._store is not None
        why = f"{what} has not ended within {self._teardown_seconds:g} s"
        if self._scheduler is not None:
            self._scheduler.give_up_teardowns(RowTimeoutError(why))
        if not self._writer.flush(timeout=BEAT_SECONDS):
            # The store is away: the results are worth waiting for.
            return
        logger.error("%s; this worker process leaves without it, and all results so far are stored", why)
        if self._inflight_journal is not None:
            self._inflight_journal.complete_all()
        try:
            self._store.workers.end(self._worker_id, reason=f"was stuck: {why}")
        except StoreError as error:
            logger.warning("the end of this worker process cannot be recorded: %s", error.message)
        # The thread that tears down cannot be ended, and leaving in order would wait for it.
        os._exit(UNEXPECTED)

    def _renew(self) -> None:
        self._publisher.renew(self._held_tasks.leases())

    def _dispatch(self) -> None:
        assert self._store is not None
        if self._state != "ready":
            return
        for evaluation in self._store.evaluations.running():
            # Others are being run by plain pytest, in its own process.
            if not evaluation.config.submitted:
                continue
            if self._dispatcher.queue_of(evaluation) in self._options.queues:
                self._dispatcher.settle(evaluation)
            else:
                # Those who serve its queue bring it forward; perhaps they have left after its last row.
                self._dispatcher.conclude(evaluation)


def _versions() -> dict[str, str]:
    names = ("doteval", "celery", "pytest")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _unexpected(error: BaseException) -> DotEvalError:
    wrapped = EvaluationFileError(f"the embedded pytest session failed: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _ask_to_leave() -> None:
    import signal

    os.kill(os.getpid(), signal.SIGTERM)


_current: WorkerProcess | None = None


def set_current_process(process: WorkerProcess) -> None:
    global _current
    _current = process


def current_process() -> WorkerProcess | None:
    """The worker process of this OS process, None before `set_current_process`."""
    return _current
