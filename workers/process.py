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
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from celery.worker import state

from doteval.budgets import BudgetGate, gate_of
from doteval.dispatch import Dispatcher, DispatchOptions
from doteval.errors import (
    CodeMismatchError,
    DotEvalError,
    EvaluationFileError,
    NotFoundError,
    RowTimeoutError,
    StoreError,
)
from doteval.execution.calls import CallPolicy
from doteval.execution.conductor import Assignment, Conductor, WindingDownError
from doteval.execution.embedded import Collected, with_collected
from doteval.execution.fingerprint import differing_files, fingerprint
from doteval.execution.items import EvaluationItem
from doteval.execution.loads import LoadWatch
from doteval.execution.marks import meant_for
from doteval.execution.stage import LoadFailedError, Stage, load_session_fixtures
from doteval.execution.teardown_watch import TeardownWatch
from doteval.experiments import POLICY, Evaluation, EvaluationStatus
from doteval.flight_log import FlightEntry, FlightLog
from doteval.heartbeat import BEAT_SECONDS, DISPATCH_SECONDS, Heartbeat
from doteval.load_recorder import LoadRecorder
from doteval.log_lines import IDS
from doteval.metering import Meter, Place, observe_usage, set_up_place
from doteval.monitoring import process_figures
from doteval.patience import patiently
from doteval.placement import DEVICES_VARIABLE
from doteval.pytest_plugin import loop_key
from doteval.queue.publisher import Publisher
from doteval.queue.row_task import RowTask
from doteval.results import Outcome, Row, RowStatus, Usage
from doteval.settings import load_settings
from doteval.sharing import CacheChoice, share
from doteval.spending import Budget
from doteval.spending_log import SpendingLog
from doteval.store import GroupWriter, HeldRange, LostUsage, NewResult, Store, WorkerInfo, WorkerState, new_execution
from doteval.worker_options import RECYCLED, STUCK, WorkerOptions
from workers.lane_pool import in_hand
from workers.recycling import Recycling

Value = TypeVar("Value")

# Gates of experiments with a budget that are kept.
_MOST_GATES = 100
# Seconds for which what the store said of a running evaluation is good enough for the next row task.
_GOOD_SECONDS = 0.25

logger = logging.getLogger("doteval.worker")


class GiveBackError(Exception):
    """This process will not run a row task to its end: another shall have it."""


class EndedError(Exception):
    """The evaluation was cancelled, or came to its end otherwise: its rows are not run any more."""


class WorkerProcess:
    """Runs row tasks. `start` loads the session fixtures; `finish` tears them down."""

    def __init__(self, options: WorkerOptions, hostname: str) -> None:
        self._options = options
        self._hostname = hostname
        self._state = "loading"
        self._ready = threading.Event()
        self._leaving = threading.Event()
        self._failure: BaseException | None = None
        self._holding: dict[object, HeldRange] = {}
        self._assigned: dict[Assignment, str] = {}
        self._leases: set[str | None] = set()
        self._items: dict[str, list[EvaluationItem]] = {}
        self._fingerprints: dict[EvaluationItem, dict[str, str]] = {}
        # By uid: until when what the store said of a running evaluation is good, and what it said.
        self._looked_up: dict[str, tuple[float, Evaluation]] = {}
        self._matched: dict[str, tuple[Evaluation, EvaluationItem]] = {}
        # By experiment and budget: evaluations of one experiment ask the same gate.
        self._gates: dict[tuple[int, Budget], BudgetGate] = {}
        self._flights = _flight_log(options)
        self._spending = _spending_log(options)
        self._store: Store | None = None
        self._conductor: Conductor | None = None
        self._thread = threading.Thread(target=self._serve, name="doteval-session", daemon=True)
        self._teardown_seconds = load_settings().teardown_timeout
        self._teardowns = TeardownWatch(self._thread, self._teardown_seconds)
        self._finished = False
        self._recycling = Recycling(options.max_rows, options.max_memory)
        self._stored = 0
        self._begun = 0
        self._counting = threading.Lock()
        # Why this process leaves of its own accord, None while it does not.
        self.recycled: str | None = None

    def start(self) -> None:
        """Open the store, collect, load the session fixtures.

        Raises StoreError or EvaluationFileError if that is not possible. A fixture that cannot be
        loaded is no error here: it is recorded, and evaluations that do not need it are served.
        """
        share(self._options.sharing)
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
        self._writer = GroupWriter(store, self._worker_id, on_commit=process_figures.count_commit)
        self._publisher = Publisher(self._options.broker, self._options.queues[0], self._options.visibility_timeout)
        self._dispatcher = Dispatcher(store, self._publisher, DispatchOptions(slots=self._options.slots))
        self._heartbeat = Heartbeat(
            (
                (BEAT_SECONDS, self._beat),
                (BEAT_SECONDS, self._watch_memory),
                (BEAT_SECONDS, self._watch_teardowns),
                (DISPATCH_SECONDS, self._dispatch),
                (max(BEAT_SECONDS, self._options.visibility_timeout / 4), self._renew),
            ),
            supervisor=self._options.supervisor,
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
        if self._conductor is not None:
            self._conductor.wind_down()

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
        if redelivered and self._is_in_good_hands(task):
            return "dropped: a live worker process has these rows in hand"
        held = object()
        self._holding[held] = HeldRange(task.evaluation_uid, task.first, task.last)
        if lease is not None:
            self._leases.add(lease)
        try:
            return self._run_held(task)
        finally:
            self._leases.discard(lease)
            del self._holding[held]

    def _is_in_good_hands(self, task: RowTask) -> bool:
        """Whether this process, or another live one, holds the rows of a message that came again.

        A broker that loses a connection hands out everything again that was sent on it, although the
        worker process may be well and working on it.
        """
        mine = HeldRange(task.evaluation_uid, task.first, task.last)
        if mine in self._holding.values():
            return True
        asked = time.monotonic()

        def others(store: Store) -> list[WorkerState]:
            return [worker for worker in store.workers.live() if worker.id != self._worker_id]

        # What the others hold is known when each of them has told it since.
        live = self._patiently(others)
        while any(worker.age > time.monotonic() - asked for worker in live):
            if self._leaving.wait(BEAT_SECONDS / 4):
                raise GiveBackError("leaving")
            live = self._patiently(others)
        return any(mine in worker.holding and worker.state == "ready" for worker in live)

    def _run_held(self, task: RowTask) -> str:
        assert self._store is not None
        assert self._conductor is not None
        try:
            evaluation = self._evaluation(task.evaluation_uid)
        except NotFoundError:
            return f"dropped: the store {self._store.url} has no such evaluation"
        if evaluation.status in (EvaluationStatus.CANCELLED, EvaluationStatus.FAILED):
            return f"dropped: the evaluation is {evaluation.status}"
        try:
            item = self._match(evaluation)
        except CodeMismatchError as error:
            self._loads.refused(evaluation.id, error.message)
            raise self._refuse(evaluation, error) from error
        self._pay_for_set_up(evaluation, item)
        gate = self._gate_of(evaluation)
        if gate is not None and (refusal := gate.refusal()) is not None:
            if isinstance(refusal, EndedError):
                return f"dropped: {refusal}"
            raise refusal
        rows = self._patiently(lambda store: store.rows.pending(evaluation.id, task.first, task.last))
        if not rows:
            return "0 rows: all done before"
        suspects = self._patiently(lambda store: store.crashes.suspects(evaluation.id, task.first, task.last))
        calm = [row for row in rows if (row.index, row.sample) not in suspects]
        suspected = [row for row in rows if (row.index, row.sample) in suspects]
        landing = _Landing(
            evaluation, self._writer, self._count_stored, self._spending, parts=2 if calm and suspected else 1
        )
        policy = CallPolicy(**cast("dict[str, Any]", evaluation.spec.metadata.get(POLICY, {})))
        note = functools.partial(self._note, evaluation.id) if self._flights is not None else None
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
                CacheChoice.of(evaluation.spec.metadata),
                self._spend,
            )
            for part, alone in ((calm, False), (suspected, True))
            if part
        ]
        self._assigned.update(dict.fromkeys(assignments, evaluation.uid))
        try:
            for assignment in assignments:
                self._conductor.assign(assignment)
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

    def _gate_of(self, evaluation: Evaluation) -> BudgetGate | None:
        """What lets rows of an evaluation begin, None if it has no budget."""
        assert self._store is not None
        experiment, budget = evaluation.experiment, Budget.of(evaluation.spec.metadata)
        if not budget:
            return None
        known = self._gates.get((experiment.id, budget))
        if known is not None:
            return known
        if len(self._gates) >= _MOST_GATES:
            # They can be made again at any time.
            self._gates.clear()
        gate = gate_of(
            self._store,
            experiment,
            budget,
            self._writer,
            EndedError,
            patiently=self._patiently,
            leaving=self._leaving,
            left=functools.partial(GiveBackError, "leaving"),
        )
        return self._gates.setdefault((experiment.id, budget), gate)

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
            return patiently(lambda: read(store), leaving=self._leaving, told=logger.warning)
        except StoreError as error:
            raise GiveBackError(error.message) from error

    def _note(self, evaluation_id: int, rows: Sequence[Row]) -> _Noted:
        """Note in the flight log that rows begin."""
        assert self._flights is not None
        slots = self._flights.take_off(FlightEntry(evaluation_id, row.index, row.sample) for row in rows)
        self._count_begun(len(rows))
        return _Noted(self._flights, slots, functools.partial(self._count_begun, -len(rows)))

    def _count_begun(self, rows: int) -> None:
        with self._counting:
            self._begun += rows

    def ids(self, evaluation_uid: str, first: int, last: int) -> dict[str, dict[str, object]]:
        """What log lines about a row task carry."""
        ids: dict[str, object] = {"evaluation_id": evaluation_uid, "first_row": first, "last_row": last}
        known = self._matched.get(evaluation_uid)
        if known is not None:
            ids |= {"experiment": known[0].experiment.name, "evaluation": known[0].spec.nodeid}
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

    def _match(self, evaluation: Evaluation) -> EvaluationItem:
        """Our own item for an evaluation. Raises CodeMismatchError if our files are others."""
        known = self._matched.get(evaluation.uid)
        if known is not None and known[0].spec.fingerprint == evaluation.spec.fingerprint:
            return known[1]
        candidates = [
            item
            for item in self._items.get(evaluation.name, [])
            if _same_path(item.evaluation_path, evaluation.spec.path)
        ]
        if not candidates:
            raise CodeMismatchError(
                f"this worker has no evaluation {evaluation.spec.nodeid} below {', '.join(self._options.paths)}",
                remedy="Start the worker with the path of the submitted file, and with the same files.",
            )
        differing: list[str] = []
        for item in candidates:
            differing = differing_files(evaluation.spec.fingerprint, self._fingerprints[item])
            if not differing:
                self._matched[evaluation.uid] = (evaluation, item)
                return item
        raise CodeMismatchError(
            f"the worker's files differ from the submitter's for {evaluation.spec.nodeid}: {', '.join(differing)}",
            remedy="Bring the same files to every worker, and restart the workers.",
        )

    def _serve(self) -> None:
        """The session thread: collect, load, run rows, tear down."""
        try:
            with_collected(
                self._options.paths,
                self._serve_collected,
                keyword=self._options.keyword,
                root=self._options.root,
                plugins=[LoadWatch(self._loads)],
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
        for item in collected.items:
            self._items.setdefault(item.evaluation_name, []).append(item)
            # Now, before fixtures import more than collection did.
            self._fingerprints[item] = fingerprint(item)
        stage = Stage()
        options = self._options
        self._conductor = Conductor(
            stage,
            collected.config.stash[loop_key],
            concurrency=options.concurrency,
        )
        # Those of others are loaded with the first row, if one should come after all.
        for failure in load_session_fixtures(meant_for(collected.items, options.queue_names)):
            logger.warning("cannot load the session fixtures of %s", failure)
        # Models stay too. And rows make thousands of objects at a time, few of them cycles.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        # The writer asks for the interpreter after every line that it inserts; the thread that runs rows would
        # keep it for 5 ms each time.
        sys.setswitchinterval(0.0005)
        self._ready.set()
        if self._leaving.is_set():
            self._conductor.wind_down()
        self._conductor.serve()
        self._teardowns.closing()
        stage.close()

    def _beat(self) -> None:
        assert self._store is not None
        # What waits for a thread is held too: nobody else has it.
        waiting = [HeldRange(task.evaluation_uid, task.first, task.last) for task in in_hand()]
        holding = dict.fromkeys([*self._holding.values(), *waiting])
        self._store.workers.beat(self._worker_id, state=self._state, holding=list(holding))
        if self._conductor is not None:
            self._conductor.post(self._loads.snapshot)
            process_figures.tell_in_flight(min(self._begun, self._conductor.rows_at_once))
            self._withdraw_ended(self._conductor)

    def _withdraw_ended(self, conductor: Conductor) -> None:
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
                conductor.withdraw(assignment, EndedError(f"the evaluation {why}"))

    def _watch_memory(self) -> None:
        # One that has stored nothing yet would be followed by another that stores nothing.
        if self._stored:
            self._recycle_if_due(self._recycling.after_beat())

    def _watch_teardowns(self) -> None:
        """Leave without a teardown that does not end, once everything that was computed is stored."""
        what = self._teardowns.overdue()
        if what is None:
            return
        assert self._store is not None
        why = f"{what} has not ended within {self._teardown_seconds:g} s"
        if self._conductor is not None:
            self._conductor.give_up_teardowns(RowTimeoutError(why))
        if not self._writer.flush(timeout=BEAT_SECONDS):
            # The store is away: the results are worth waiting for.
            return
        logger.error("%s; this worker process leaves without it, and all results so far are stored", why)
        if self._flights is not None:
            self._flights.land_all()
        try:
            self._store.workers.end(self._worker_id, reason=f"was stuck: {why}")
        except StoreError as error:
            logger.warning("the end of this worker process cannot be recorded: %s", error.message)
        # The thread that tears down cannot be ended, and leaving in order would wait for it.
        os._exit(STUCK)

    def _renew(self) -> None:
        self._publisher.renew([lease for lease in list(self._leases) if lease is not None])

    def _dispatch(self) -> None:
        assert self._store is not None
        if self._state != "ready":
            return
        for evaluation in self._store.evaluations.running():
            # Others are being run by plain pytest, in its own process.
            if POLICY not in evaluation.spec.metadata:
                continue
            if self._dispatcher.queue_of(evaluation) in self._options.queues:
                self._dispatcher.settle(evaluation)
            else:
                # Those who serve its queue bring it forward; perhaps they have left after its last row.
                self._dispatcher.conclude(evaluation)


class _Landing:
    """Where the rows of one row task arrive: counts them, and knows when all are stored."""

    def __init__(
        self,
        evaluation: Evaluation,
        writer: GroupWriter,
        on_stored: Callable[[Outcome], None],
        spending: SpendingLog | None,
        *,
        parts: int,
    ) -> None:
        self._evaluation_id = evaluation.id
        self._evaluation_uid = evaluation.uid
        self._spending = spending
        self._parts = parts
        self._writer = writer
        self._on_stored = on_stored
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._unstored = 0
        self._cut: BaseException | None = None
        self._counts: Counter[RowStatus] = Counter()
        self._tokens = 0

    def record(self, row: Row, outcome: Outcome) -> None:
        with self._lock:
            self._unstored += 1
            self._counts[outcome.status] += 1
            self._tokens += sum(usage.prompt_tokens + usage.completion_tokens for usage in outcome.usage)
        execution = new_execution()
        place = Place(self._evaluation_uid, row.index, row.sample)
        if self._spending is not None and outcome.usage:
            # Under this name its usage counts once, though the process may die before it knows that it is stored.
            self._spending.ended(place, execution)
        new = NewResult(self._evaluation_id, row, outcome, execution)
        self._writer.put(new, functools.partial(self._stored, place, outcome))

    def ended(self, cut: BaseException | None) -> None:
        with self._lock:
            self._parts -= 1
            self._cut = self._cut or cut
            self._look()

    def wait(self) -> BaseException | None:
        """Wait until every row has ended and is stored. Returns what cut the assignment short."""
        self._over.wait()
        return self._cut

    def summary(self) -> str:
        parts = [f"{sum(self._counts.values())} rows"]
        parts += [
            f"{self._counts[status]} {status}"
            for status in (RowStatus.FAILED, RowStatus.SKIPPED)
            if self._counts[status]
        ]
        if self._tokens:
            parts.append(f"{_thousands(self._tokens)} tokens")
        return ", ".join(parts)

    def _stored(self, place: Place, outcome: Outcome, error: BaseException | None) -> None:
        if error is None:
            self._on_stored(outcome)
            if self._spending is not None and outcome.usage:
                self._spending.stored(place)
        with self._lock:
            self._unstored -= 1
            self._cut = self._cut or error
            self._look()

    def _look(self) -> None:
        if not self._parts and not self._unstored:
            self._over.set()


class _Noted:
    """Rows in the flight log. `on_landed` is told when they have ended."""

    __slots__ = ("_flights", "_on_landed", "_slots")

    def __init__(self, flights: FlightLog, slots: list[int], on_landed: Callable[[], None]) -> None:
        self._flights = flights
        self._slots = slots
        self._on_landed = on_landed

    def called(self, limit: float) -> None:
        self._flights.called(self._slots, limit)

    def returned(self) -> None:
        self._flights.returned(self._slots)

    def landed(self) -> None:
        self._flights.land(self._slots)
        self._on_landed()


def _spending_log(options: WorkerOptions) -> SpendingLog | None:
    if options.flight_logs is None:
        return None
    return SpendingLog(Path(options.flight_logs) / f"{os.getpid()}.spending")


def _flight_log(options: WorkerOptions) -> FlightLog | None:
    if options.flight_logs is None:
        return None
    return FlightLog(Path(options.flight_logs) / f"{os.getpid()}.flights")


def _same_path(ours: str, theirs: str) -> bool:
    """Whether two paths mean the same file, below root directories of which one may hold the other."""
    return ours == theirs or ours.endswith("/" + theirs) or theirs.endswith("/" + ours)


def _thousands(count: int) -> str:
    return str(count) if count < 1000 else f"{count / 1000:.0f} k"


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
