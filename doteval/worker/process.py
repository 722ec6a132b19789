"""The worker process: one embedded pytest session, one copy of every session fixture, one writer."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import platform
import threading
from collections.abc import Callable

from celery.worker import state

from doteval.broker.messages import RowTask
from doteval.broker.publisher import Publisher
from doteval.broker.renewable_connections import renew_connections
from doteval.clients.shared_state import shared_prices
from doteval.coordination.batches.coordinator import BatchCoordinator
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.coordination.fixture_load_recorder import LoadRecorder
from doteval.coordination.heartbeat import Heartbeat
from doteval.coordination.registration import Registration
from doteval.core.client_config import configure_clients
from doteval.core.error_leaves import for_logs, in_one_line
from doteval.core.exit_codes import RECYCLED
from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors
from doteval.core.liveness import BEAT_SECONDS
from doteval.core.metering import observe_usage
from doteval.core.queues_and_devices import DEVICES_VARIABLE
from doteval.core.results import Outcome
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.core.wording import counted
from doteval.errors import DotEvalError, EvaluationFileError, StoreError
from doteval.monitoring import process_figures
from doteval.pytest_runtime.async_fixtures import loop_key
from doteval.pytest_runtime.embedded_session import Collected, with_collected
from doteval.pytest_runtime.evaluation_setup import EvaluationSetup, load_session_fixtures
from doteval.pytest_runtime.fixture_watchdog import FixtureWatchdog
from doteval.pytest_runtime.items import served_items
from doteval.pytest_runtime.load_timer import LoadTimer
from doteval.pytest_runtime.outcomes import runnable
from doteval.runner.error_classes import survive_rows
from doteval.runner.scheduler import Scheduler
from doteval.settings import load_settings
from doteval.store import GroupWriter, Store, WorkerCode, WorkerInfo
from doteval.supervision.left_usage import OwnJournals, store_left_usage
from doteval.supervision.start_reports import announce_token
from doteval.supervision.worker_config import WorkerOptions
from doteval.tracing.commands import prepare_tracing, send_traces
from doteval.worker.batch_thread import BatchThread
from doteval.worker.broker_watch import BrokerWatch
from doteval.worker.code_match import CodeMatch
from doteval.worker.code_reload import CodeReload
from doteval.worker.context import WorkerContext
from doteval.worker.heartbeat_duties import HeartbeatDuties
from doteval.worker.held_tasks import HeldTasks
from doteval.worker.journals import open_journals
from doteval.worker.prefetch import Prefetch
from doteval.worker.recycling import Recycling
from doteval.worker.row_task_runner import RowTaskRunner
from doteval.worker.summary_recorder import SummaryRecorder

logger = logging.getLogger("doteval.worker")

# At its end a process waits so long for its last request to the broker, before it cuts the connection.
_LAST_REQUEST_SECONDS = 2.0


class WorkerProcess:
    """Runs row tasks: `run` has the embedded pytest session, `run_rows` gives it rows, and `finish` ends the rest.

    prefetch: decides when to fetch the next row task.
    broker_watch: notices that the broker is silent.
    recycled: why this process leaves of its own accord, None while it does not.
    """

    def __init__(self, options: WorkerOptions, hostname: str) -> None:
        self.prefetch = Prefetch()
        self.broker_watch = BrokerWatch(options.broker.connection.answer_seconds)
        self.recycled: str | None = None
        self._options = options
        self._hostname = hostname
        self._leaving = threading.Event()
        # Set when this process can run rows.
        self._ready = threading.Event()
        self._context: WorkerContext | None = None
        # The heartbeat and the watch, which never wait for the broker, and the thread that does.
        self._beating: tuple[Heartbeat, ...] = ()
        self._dispatching: Heartbeat | None = None
        self._runner: RowTaskRunner | None = None
        self._recorder: SummaryRecorder | None = None
        self._batches: BatchThread | None = None
        settings = load_settings()
        self._teardown_seconds, self._drain_seconds = settings.teardown_timeout, settings.drain_timeout
        self._watchdog = FixtureWatchdog(threading.main_thread(), self._teardown_seconds)
        self._recycling = Recycling(options.max_rows, options.max_memory)
        # Written on the writer's thread only.
        self._stored = 0

    def run(self, on_ready: Callable[[], None]) -> None:
        """Collect the evaluation files, load their session fixtures, run rows, and tear the fixtures down.

        Belongs to the main thread, where plain pytest runs rows. Returns when this process is to leave, and all rows in
        flight have ended. A fixture that cannot be loaded is recorded; evaluations that do not request it are served.

        on_ready: called when rows can be run, unless this process was asked to leave before

        Raises WorkerError, StoreError or EvaluationFileError: if the process cannot serve any evaluation.
        """
        # A row that raises KeyboardInterrupt or calls pytest.exit ends here like any other row.
        survive_rows()
        context = self._context = self._open()
        held_tasks = HeldTasks(
            lambda: context.registration.id,
            read_store=context.read_store,
            leaving=self._leaving,
            # Others do not publish rows again that they believe are held here, though a retry made them pending.
            on_empty=lambda: heartbeat.soon(duties.beat),
        )
        code_reload = CodeReload(context, self._recycle_if_due)
        self._runner = RowTaskRunner(context, held_tasks, self.prefetch, self._count_stored, code_reload)
        recorder = self._recorder = SummaryRecorder(context.store, context.code_match)
        batches = self._batches = BatchThread(
            context,
            BatchCoordinator(
                context.store,
                context.dispatcher,
                lambda: context.registration.id,
                serves=lambda evaluation: context.dispatcher.queue_of(evaluation) in self._options.queues,
                run_row=lambda evaluation, index: self.runner.run_waiting(evaluation, index),
                prices=shared_prices,
            ),
        )
        duties = HeartbeatDuties(
            context,
            self._runner,
            held_tasks,
            self._watchdog,
            teardown_seconds=self._teardown_seconds,
            loaded=self._ready,
            broker_silence=self.broker_watch.silence,
            check_memory=self._check_memory,
            on_ended=recorder.ended,
            code_reload=code_reload,
        )
        heartbeat = Heartbeat(duties.schedule())
        # This one waits for the store as little as for the broker.
        watch = Heartbeat([(BEAT_SECONDS, self.broker_watch.check)], parent=self._options.parent, name="doteval-watch")
        self._beating = heartbeat, watch
        self._dispatching = Heartbeat(duties.broker_schedule(), name="doteval-dispatching")
        duties.beat()
        for each in (*self._beating, self._dispatching):
            each.start()

        def ready() -> None:
            self._ready.set()
            if not self._leaving.is_set():
                if not self._options.broker.is_private:
                    recorder.start()
                batches.start()
                on_ready()
            # The store says last that this process is ready: who reads it there finds it taking row tasks.
            context.state = WorkerPhase.READY
            if self._leaving.is_set():
                context.wind_down()
            heartbeat.soon(duties.beat)

        try:
            with_collected(
                self._options.paths,
                lambda collected: self._serve(collected, context, ready),
                keyword=self._options.keyword,
                root=self._options.root,
                plugins=[LoadTimer(context.loads)],
            )
        except BaseException as error:
            if not self._ready.is_set():
                raise error if isinstance(error, DotEvalError) else _unexpected(error) from error
            self.wind_down(f"its pytest session ended with {for_logs(error)}")
            if is_lack_of_descriptors(error):
                logger.error("the embedded pytest session has ended: no file can be opened. %s", how_to_raise())  # noqa: TRY400
            else:
                logger.exception("the embedded pytest session ended with an error")
        finally:
            self._watchdog.closed()

    @property
    def is_registered(self) -> bool:
        """Whether this process has registered in the store, which it leaves with `finish`."""
        return self._context is not None

    @property
    def runner(self) -> RowTaskRunner:
        """Runs the row tasks. Only to be used once this process is ready."""
        assert self._runner is not None
        return self._runner

    @property
    def left_because(self) -> str | None:
        """Why this process leaves, None if nothing is known."""
        return self.recycled or (None if self._context is None else self._context.left_because)

    def wind_down(self, because: str | None = None) -> None:
        """Begin no further row, and let `run` end. Called on any thread; the reason of the first call counts."""
        if self._context is not None:
            self._context.wind_down(because)
        self._leaving.set()
        self.broker_watch.end()

    def leave_at_once(self, reason: str, exit_code: int) -> None:
        """End this process without waiting for rows in flight, which stay pending. Called on any thread."""
        self.wind_down()
        if self._context is None:
            os._exit(exit_code)
        self._context.writer.flush(timeout=BEAT_SECONDS)
        self._context.leave_at_once(WorkerEnd.LEFT, reason, exit_code)

    def store_results(self) -> None:
        """Store what the rows have computed; after `teardown_timeout` seconds, leave without. Called after `run`.

        Those rows stay pending and run again. What they have used is in the usage journal, which others read.
        """
        context = self._context
        if context is None or context.writer.flush(self._teardown_seconds):
            return
        lost = f"{counted(context.writer.waiting, 'result')} could not be stored within {self._teardown_seconds:g} s"
        logger.error("%s; this worker process leaves without, and the rows run again", lost)
        context.inflight_journal.complete_all()
        # It does not ask the store to record the end, which would take its time too. The supervisor does that.
        os._exit(StoreError.exit_code)

    def finish(self, cause: WorkerEnd, reason: str) -> None:
        """Store what is not stored yet, and record why the process left. Called after `run`."""
        self.wind_down()
        context = self._context
        if context is None or self._dispatching is None:
            return
        # It may wait for a provider; the heartbeat goes on meanwhile.
        if self._batches is not None:
            self._batches.stop(self._teardown_seconds)
        send_traces(self._options.client_config.tracing)
        for each in self._beating:
            each.stop()
        if not self._dispatching.stop(_LAST_REQUEST_SECONDS):
            renew_connections()
            self._dispatching.stop()
        context.writer.close()
        if self._recorder is not None:
            self._recorder.stop(self._teardown_seconds)
        context.publisher.close()
        try:
            if context.own_journals is not None:
                context.own_journals.close(context.store, context.registration.id)
            context.registration.end(cause, reason=reason)
        except StoreError as error:
            # Others notice by the missing heartbeat.
            logger.warning("the end of this worker process cannot be recorded: %s", error.message)
        context.store.close()

    def run_rows(self, task: RowTask, lease: str | None = None, *, redelivered: bool = False) -> str:
        """Run the pending rows of a row task; see `RowTaskRunner.run`."""
        return self.runner.run(task, lease, redelivered=redelivered)

    def _open(self) -> WorkerContext:
        options = self._options
        own_journals = OwnJournals() if options.journals is None else None
        journals = options.journals if own_journals is None else str(own_journals.directory)
        assert journals is not None
        inflight_journal, usage_journal = open_journals(journals, options.figures)
        configure_clients(options.client_config)
        observe_usage(usage_journal.spent)
        store = Store.open(options.storage)
        if own_journals is not None:
            store_left_usage(store)
        registration = Registration(
            store,
            WorkerInfo.of_this_process(
                self._hostname,
                queues=options.queues,
                concurrency=options.concurrency or 0,
                versions=_versions(),
                device=os.environ.get(DEVICES_VARIABLE),
                supervisor=options.supervisor_token,
            ),
            announce=lambda token: announce_token(journals, token),
        )
        publisher = Publisher(options.broker, options.queues[0], options.visibility_timeout)
        return WorkerContext(
            options=options,
            store=store,
            registration=registration,
            loads=LoadRecorder(store, registration.id),
            writer=GroupWriter(store, registration.id, on_commit=process_figures.count_commit),
            publisher=publisher,
            dispatcher=Dispatcher(store, publisher, DispatchOptions(slots=options.slots)),
            code_match=CodeMatch(options.paths),
            inflight_journal=inflight_journal,
            usage_journal=usage_journal,
            leaving=self._leaving,
            drain_seconds=self._drain_seconds,
            own_journals=own_journals,
        )

    def _count_stored(self, outcome: Outcome) -> None:
        process_figures.count_stored(outcome)
        self._stored += 1
        self._recycle_if_due(self._recycling.after_row(self._stored))

    def _check_memory(self) -> None:
        # A process that has stored nothing yet would only be followed by another that stores nothing.
        if self._stored:
            self._recycle_if_due(self._recycling.after_beat())

    def _recycle_if_due(self, reason: str | None) -> None:
        """Make room for a fresh process: rows in flight end, and the other rows are given back."""
        if reason is None or self._leaving.is_set():
            return
        self.recycled = reason
        self.wind_down()
        # Celery then shuts down as after SIGTERM, but with this exit code.
        state.should_stop = RECYCLED

    def _serve(self, collected: Collected, context: WorkerContext, ready: Callable[[], None]) -> None:
        context.code_match.add(collected.items, collected.root)
        reloads = self._options.supervisor is not None
        code = WorkerCode(str(collected.root), context.code_match.files, reloads)
        context.store.workers.has_read(context.registration.id, code)
        setup = EvaluationSetup()
        scheduler = context.scheduler = Scheduler(
            setup,
            collected.config.stash[loop_key],
            concurrency=self._options.concurrency,
        )
        served = served_items(collected.items, self._options.queue_names)
        # Fixtures of evaluations on other queues are loaded with the first row, should one come after all.
        for failure in load_session_fixtures(runnable(served)):
            logger.warning("cannot load the session fixtures of %s", failure)
        # Only now, so that files and fixtures that set up OpenTelemetry for their own spans come first.
        prepare_tracing(self._options.client_config.tracing)
        # Models stay until the process ends. Rows make thousands of objects at a time, of which few are in cycles.
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        ready()
        scheduler.serve()
        # From here on each teardown has a limit of its own.
        context.rows_due = None
        self._watchdog.closing()
        setup.close()


def _versions() -> dict[str, str]:
    names = ("doteval", "celery", "pytest")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def _unexpected(error: BaseException) -> DotEvalError:
    what = "the embedded pytest session failed"
    wrapped = EvaluationFileError(f"{what}: {in_one_line(error)}", logged=f"{what}: {for_logs(error)}")
    wrapped.__cause__ = error
    return wrapped


_current: WorkerProcess | None = None


def set_current_process(process: WorkerProcess) -> None:
    """Make `process` the one that Celery's tasks of this OS process use."""
    global _current
    _current = process


def current_process() -> WorkerProcess | None:
    """The worker process of this OS process, None before `set_current_process`."""
    return _current
