"""Stores the metrics of evaluations that have ended, on a thread of its own, if no submitter is there to do it."""

from __future__ import annotations

import contextlib
import logging
import threading

from doteval.coordination.ended_evaluations import compute_summary
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.liveness import DISPATCH_SECONDS
from doteval.errors import CodeMismatchError, DotEvalError
from doteval.store import Store
from doteval.worker.code_match import CodeMatch

# Evaluations that ended longer ago are left alone: `doteval recompute` computes their metrics.
_RECENT_SECONDS = 600.0

logger = logging.getLogger("doteval.worker")


class SummaryRecorder:
    """Computes and stores the metrics of evaluations that have ended and have none stored.

    Only worker processes with the same code know all metrics of an evaluation whose submitter has left. The process
    that ends an evaluation does it at once. The others do it when they see at a second look that it is not done: the
    process or the submitter has died, or results came late.

    A thread does it, since metrics are the user's code and may take any time.
    """

    def __init__(self, store: Store, code_match: CodeMatch) -> None:
        self._store = store
        self._code_match = code_match
        self._wake = threading.Event()
        self._stopping = False
        self._ended_here: set[str] = set()
        # Seen without stored metrics at the last look.
        self._seen: set[str] = set()
        # By uid: the evaluation with the results for which this process has done what it can.
        self._attempted: dict[str, Evaluation] = {}
        self._thread = threading.Thread(target=self._keep_recording, name="doteval-metrics", daemon=True)

    def start(self) -> None:
        """Begin, once the evaluation files are collected."""
        self._thread.start()

    def ended(self, evaluation: Evaluation) -> None:
        """Note that this process has ended an evaluation."""
        self._ended_here.add(evaluation.uid)
        self._wake.set()

    def stop(self, timeout: float) -> None:
        """Begin nothing more, and wait for at most `timeout` seconds for what has begun."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _keep_recording(self) -> None:
        last = ""
        while True:
            self._wake.wait(DISPATCH_SECONDS)
            self._wake.clear()
            # What this process has ended is recorded before it leaves.
            if self._stopping and not self._ended_here:
                return
            try:
                self._record()
                last = ""
            except DotEvalError as error:
                if error.message != last and error.say_once():
                    logger.warning("the metrics of an evaluation are not stored yet: %s", error.message)
                last = error.message
            except Exception:
                logger.exception("an unexpected error while the metrics of an evaluation were stored")
            if self._stopping:
                return

    def _record(self) -> None:
        ended = [
            each
            for each in self._store.evaluations.current(_RECENT_SECONDS)
            # The submitter with the private broker computes the metrics itself, as plain pytest does.
            if each.status is not EvaluationStatus.RUNNING and each.config.submitted and not each.is_private
        ]
        stored = self._store.summaries.stored(ended)
        missing = [each for each in ended if each.id not in stored and self._attempted.get(each.uid) != each]
        due = [each for each in missing if each.uid in self._seen or each.uid in self._ended_here]
        self._seen = {each.uid for each in missing}
        self._ended_here.clear()
        for evaluation in due:
            self._attempted[evaluation.uid] = evaluation
            # Without the code of the submitter, the metrics of this process may be others of the same names.
            with contextlib.suppress(CodeMismatchError):
                self._code_match.match(evaluation)
                compute_summary(self._store, evaluation)
