"""What the parts of one worker process share."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from doteval.broker.publisher import Publisher
from doteval.coordination.dispatcher import Dispatcher
from doteval.coordination.fixture_load_recorder import LoadRecorder
from doteval.coordination.outage_retry import retry_through_outage
from doteval.coordination.registration import Registration
from doteval.core import clocks
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.errors import StoreError
from doteval.runner.scheduler import Scheduler
from doteval.store import GroupWriter, Store
from doteval.supervision.inflight_journal import InflightJournal
from doteval.supervision.left_usage import OwnJournals
from doteval.supervision.usage_journal import UsageJournal
from doteval.supervision.worker_config import WorkerOptions
from doteval.worker.code_match import CodeMatch
from doteval.worker.row_task_errors import GiveBackError

Value = TypeVar("Value")

logger = logging.getLogger("doteval.worker")


@dataclass(slots=True, eq=False)
class WorkerContext:
    """The connections, journals and state of one worker process.

    leaving: set as soon as the process begins no further row.
    drain_seconds: how long the rows in flight may take to end then.
    scheduler: None until the evaluation files are collected.
    state: what the heartbeat reports: loading, ready or draining.
    own_journals: the directory of the journals if no supervisor reads them; None if one does.
    rows_due: when it leaves without the rows in flight; None before it is to leave, and once they have ended.
    left_because: why it leaves, for the supervisor and for logs; the first reason is kept.
    """

    options: WorkerOptions
    store: Store
    registration: Registration
    loads: LoadRecorder
    writer: GroupWriter
    publisher: Publisher
    dispatcher: Dispatcher
    code_match: CodeMatch
    inflight_journal: InflightJournal
    usage_journal: UsageJournal
    leaving: threading.Event
    drain_seconds: float
    scheduler: Scheduler | None = None
    state: WorkerPhase = WorkerPhase.LOADING
    own_journals: OwnJournals | None = None
    rows_due: float | None = None
    left_because: str | None = None

    def read_store(self, read: Callable[[Store], Value]) -> Value:
        """Read from the store, and retry while it is unavailable.

        Raises GiveBackError: when this process leaves before the store answers.
        """
        try:
            return retry_through_outage(lambda: read(self.store), leaving=self.leaving, on_message=logger.warning)
        except StoreError as error:
            raise GiveBackError(error.message) from error

    def wind_down(self, because: str | None = None) -> None:
        """Begin no further row. Called on any thread."""
        if not self.leaving.is_set():
            self.left_because = because
            self.rows_due = clocks.monotonic() + self.drain_seconds
        self.leaving.set()
        self.state = WorkerPhase.DRAINING
        if self.scheduler is not None:
            self.scheduler.wind_down()

    def leave_at_once(self, end: WorkerEnd, reason: str, exit_code: int) -> NoReturn:
        """Record why this process leaves, and end it whatever its threads do. Its rows in flight stay pending."""
        self.inflight_journal.complete_all()
        try:
            self.registration.end(end, reason=reason)
        except StoreError as error:
            # Others notice by the missing heartbeat.
            logger.warning("the end of this worker process cannot be recorded: %s", error.message)
        os._exit(exit_code)


def ask_to_leave() -> None:
    """Have Celery shut this process down in order, as an operator would."""
    os.kill(os.getpid(), signal.SIGTERM)
