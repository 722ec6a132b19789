"""Starts and ends the worker process: the embedded pytest session on the main thread, Celery on a thread beside it.

So rows, fixtures and plugins find what they find in plain pytest, such as signal handlers and alarms, which Python
allows on the main thread only.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from celery import Celery, signals
from celery.apps.worker import Worker
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker import state

from doteval.broker.celery_app import consume_whole_queues
from doteval.broker.redis_transport import fetch_while, note_answers
from doteval.broker.renewable_connections import renew_connections
from doteval.core.error_leaves import for_logs, in_one_line
from doteval.core.exit_codes import UNEXPECTED
from doteval.core.states import WorkerEnd
from doteval.errors import DotEvalError, UsageError
from doteval.supervision.start_reports import StartReport, write_start_report
from doteval.supervision.worker_config import WorkerOptions
from doteval.worker import log_setup
from doteval.worker.broker_watch import ReceivedFrames
from doteval.worker.process import WorkerProcess, set_current_process
from doteval.worker.shutdown_signals import ShutdownSignals

logger = logging.getLogger("doteval.worker")

# At its end a process waits so long for Celery. Then it cuts the connections to the broker, and waits as long again.
_CELERY_SECONDS = 4.0
# The exit code of a process that was interrupted, as Celery has it.
_INTERRUPTED = 1


def connect(app: Celery, options: WorkerOptions) -> None:
    """Have Celery start worker processes with these options."""
    app.Worker = app.subclass_with_self(SessionWorker, name="Worker", row_options=options)


class SessionWorker(Worker):  # type: ignore[misc] # Celery has no types
    """Celery's worker beside an embedded pytest session.

    SIGTERM and SIGHUP let the rows in flight end, and so does the first SIGINT. SIGQUIT and a second SIGINT do not wait
    for them.

    row_options: set by `connect`
    """

    row_options: WorkerOptions

    def start(self) -> None:
        """Run the worker process until it leaves. Celery calls this on the main thread."""
        options, queues = self.row_options, consume_whole_queues(self.app, self.row_options.broker)
        self._process = WorkerProcess(replace(options, queues=queues), self.hostname)
        self._celery = threading.Thread(target=self._take_row_tasks, name="doteval-celery")
        hang_up = signal.getsignal(signal.SIGHUP)
        # At SIGHUP Celery would start this process anew, without its supervisor's knowledge.
        super().install_platform_tweaks(self)
        self._interrupted = False
        actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._on_sigterm,
            signal.SIGINT: self._on_sigint,
            signal.SIGQUIT: self._on_sigquit,
        }
        if hang_up is signal.SIG_IGN:
            # `nohup` has this process outlive its terminal.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        else:
            actions[signal.SIGHUP] = self._on_sighup
        ShutdownSignals(actions).install()
        try:
            self._check(queues)
            self._process.run(self._begin_to_take_row_tasks)
        except DotEvalError as error:
            log_setup.say_why_not(error, options.log_format)
            write_start_report(
                options.journals,
                StartReport(failure=str(error), logged=error.log_text(), registered=self._process.is_registered),
            )
            self._process.finish(WorkerEnd.FAILED_TO_START, f"could not start: {error.message}")
            # Without waiting for threads that the evaluation files have started.
            os._exit(error.exit_code)
        except Exception as error:
            logger.exception("this worker process could not start, which doteval did not expect")
            write_start_report(options.journals, StartReport(failure=in_one_line(error), logged=for_logs(error)))
            os._exit(UNEXPECTED)
        self._finish()
        if any(not each.daemon for each in threading.enumerate() if each is not threading.main_thread()):
            # Rows have left threads behind. Python would wait for them before it calls what is registered for its exit.
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(self.exitcode or os.EX_OK)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Do nothing: Celery calls this on its own thread, and `start` has set the handlers on the main thread."""

    def on_consumer_ready(self, consumer: Any) -> None:
        """Let the worker process decide when a message is fetched. Celery calls this when it is connected."""
        super().on_consumer_ready(consumer)
        if consumer.hub is not None:
            self._process.prefetch.wake = self._wake
            fetch_while(self._process.prefetch.wants_more)
            note_answers(self._process.broker_watch.heard)
            if not self.row_options.broker.is_pull_based:
                # The property of kombu's connection would connect, and wait for that.
                self._process.broker_watch.listen = ReceivedFrames(
                    lambda: getattr(consumer.connection, "_connection", None)
                )

    def _check(self, queues: tuple[str, ...]) -> None:
        """Raises UsageError: if Celery's command line says something that a worker process cannot do."""
        if not queues:
            raise UsageError("this worker process has no queue to take row tasks from", remedy="Name one with -Q.")
        if not issubclass(self.pool_cls, ThreadPool | SoloPool):
            raise UsageError(
                f"Celery's pool {self.pool_cls.__module__.rpartition('.')[2]} cannot run rows, which share the "
                "session fixtures of one process",
                remedy="Leave out --pool. For more processes start `doteval worker --processes N`, or this command "
                "several times.",
            )

    def _begin_to_take_row_tasks(self) -> None:
        set_current_process(self._process)
        write_start_report(self.row_options.journals, StartReport(ready=True))
        self._process.broker_watch.begin()
        self._celery.start()

    def _take_row_tasks(self) -> None:
        """Celery's thread: receive row tasks, until this process is asked to leave or Celery gives up."""
        try:
            super().start()
        finally:
            self._process.wind_down("Celery ended, or was asked to")

    def _finish(self) -> None:
        """Leave after the pytest session has ended."""
        if self._celery.ident is None:
            self._process.finish(WorkerEnd.LEFT, "was asked to leave while it started")
            return
        write_start_report(self.row_options.journals, StartReport(ready=True, left=self._process.left_because))
        # The session may have ended by an error.
        self._stop_celery(os.EX_OK)
        # Celery's threads wait for the results of their rows.
        self._process.store_results()
        self._wait_for_celery()
        cause = WorkerEnd.RECYCLED if self._process.recycled else WorkerEnd.LEFT
        self._process.finish(cause, self._process.recycled or "left")

    def _wait_for_celery(self) -> None:
        """Wait until Celery's thread has ended. What it waits for on a silent connection is cut short."""
        self._celery.join(_CELERY_SECONDS)
        if self._celery.is_alive():
            renew_connections()
            self._celery.join(_CELERY_SECONDS)
        if self._celery.is_alive():
            # The store knows what the broker was not notified of.
            logger.warning("the broker does not let Celery end; this worker process leaves without it")

    def _on_sigterm(self) -> None:
        self._leave("SIGTERM", os.EX_OK)

    def _on_sighup(self) -> None:
        self._leave("SIGHUP", os.EX_OK)

    def _on_sigint(self) -> None:
        if self._interrupted:
            self._on_sigquit()
        self._interrupted = True
        self._leave("SIGINT", _INTERRUPTED)

    def _on_sigquit(self) -> None:
        self._process.leave_at_once("left without waiting for its rows in flight", _INTERRUPTED)

    def _leave(self, sig: str, exit_code: int) -> None:
        """Let the rows in flight end, and give the others back. Called on any thread."""
        signals.worker_shutting_down.send(sender=self.hostname, sig=sig, how="Warm", exitcode=exit_code)
        self._process.wind_down(f"{sig} asked it to")
        self._stop_celery(exit_code)

    def _stop_celery(self, exit_code: int) -> None:
        if state.should_stop is None:
            state.should_stop = exit_code
        self._wake()

    def _wake(self) -> None:
        """Have Celery's event loop look around: whether to stop, or to fetch a message. Called on any thread."""
        if self.hub is not None:
            self.hub.call_soon(_look_around)


def _look_around() -> None:
    """Do nothing. The call ends the wait of Celery's event loop."""
