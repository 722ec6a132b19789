"""Starts and ends the worker process with Celery's signals.

threads and solo pools    worker_init … worker_shutting_down … worker_shutdown
prefork pool              worker_process_init … worker_process_shutdown, in every child
"""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from celery import signals
from celery.concurrency.prefork import TaskPool as PreforkPool

from doteval.broker.celery_app import consume_whole_queues
from doteval.broker.redis_transport import fetch_while
from doteval.core.error_leaves import in_one_line
from doteval.core.exit_codes import UNEXPECTED
from doteval.core.states import WorkerEnd
from doteval.errors import DotEvalError, UsageError
from doteval.supervision.start_reports import StartReport, write_start_report
from doteval.supervision.worker_config import WorkerOptions
from doteval.worker import log_setup
from doteval.worker.process import WorkerProcess, current_process, set_current_process

logger = logging.getLogger("doteval.worker")

_NO_QUEUE = UsageError("this worker process has no queue to take row tasks from", remedy="Name one with -Q.")


def connect(options: WorkerOptions) -> None:
    """Have Celery's signals start and end the worker process of this OS process."""

    # Celery's option -Q may name other queues. `on_worker_init` finds them; prefork children inherit them.
    queues = options.queues

    def begin(hostname: str) -> None:
        # The solo pool sends both signals.
        if current_process() is not None:
            return
        process = WorkerProcess(replace(options, queues=queues), hostname)

        # Celery does not handle signals yet. The process remembers them, and leaves once Celery does.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.leave_soon())
        try:
            process.start()
        except DotEvalError as error:
            log_setup.say_why_not(error, options.log_format)
            write_start_report(options.journals, StartReport(failure=str(error), registered=process.is_registered))
            process.finish(WorkerEnd.FAILED_TO_START, f"could not start: {error.message}")
            # Celery would catch SystemExit in a signal handler and go on without fixtures.
            os._exit(error.exit_code)
        if process.is_leaving:
            process.finish(WorkerEnd.LEFT, "was asked to leave while it started")
            os._exit(0)
        write_start_report(options.journals, StartReport(ready=True))
        set_current_process(process)

    @_or_leave(options)
    def on_worker_init(sender: Any, **_: Any) -> None:
        nonlocal queues
        queues = consume_whole_queues(sender.app, options.broker)
        if not queues:
            log_setup.say_why_not(_NO_QUEUE, options.log_format)
            write_start_report(options.journals, StartReport(failure=_NO_QUEUE.message))
            os._exit(_NO_QUEUE.exit_code)
        if not issubclass(sender.pool_cls, PreforkPool):
            begin(sender.hostname)

    @_or_leave(options)
    def on_child_init(sender: Any, **_: Any) -> None:
        begin(str(sender))

    def on_ready(sender: Any, **_: Any) -> None:
        process = current_process()
        if sender.hub is not None:
            _wake_by_signals(sender.hub)
            if process is not None:
                process.prefetch.wake = functools.partial(sender.hub.call_soon, _check_again)
                fetch_while(process.prefetch.wants_more)
        if process is not None and process.is_leaving:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_shutting_down(**_: Any) -> None:
        if (process := current_process()) is not None:
            process.wind_down()

    def on_shutdown(**_: Any) -> None:
        if (process := current_process()) is not None:
            cause = WorkerEnd.RECYCLED if process.recycled else WorkerEnd.LEFT
            process.finish(cause, process.recycled or "left")

    signals.worker_init.connect(on_worker_init, weak=False)
    signals.worker_process_init.connect(on_child_init, weak=False)
    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    signals.worker_process_shutdown.connect(on_shutdown, weak=False)
    signals.worker_shutdown.connect(on_shutdown, weak=False)


def _or_leave(options: WorkerOptions) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that ends this process if a signal handler raises an unexpected error.

    Celery would log the error and go on, with a process that receives row tasks and can run none.
    """

    def guard(begin: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(begin)
        def begin_or_leave(*args: Any, **kwargs: Any) -> None:
            try:
                begin(*args, **kwargs)
            except Exception as error:
                logger.exception("this worker process could not start, which doteval did not expect")
                write_start_report(options.journals, StartReport(failure=in_one_line(error)))
                os._exit(UNEXPECTED)

        return begin_or_leave

    return guard


def _check_again() -> None:
    """Do nothing. The call wakes Celery's event loop, which then checks whether to fetch a message."""


def _wake_by_signals(hub: Any) -> None:
    """Have a signal end the wait of Celery's event loop, which otherwise notices it after up to a second."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hub.add_reader(reading, os.read, reading, 4096)
