"""Replaces a worker process whose files have changed by a fresh one, once it has no rows to run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from doteval.coordination.claims import nobody_runs
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.wording import counted
from doteval.errors import CodeMismatchError
from doteval.worker.context import WorkerContext

logger = logging.getLogger("doteval.worker")


class CodeReload:
    """Decides when this process leaves, so that its successor reads the files that have changed.

    Rows of running experiments need the files as they were, so it leaves only when no running evaluation is left that
    it can run. Safe to use from any thread.

    leave: called with the reason; rows in flight end, and the supervisor starts the successor at once.
    """

    def __init__(self, context: WorkerContext, leave: Callable[[str], None]) -> None:
        self._context = context
        self._leave = leave
        # By uid: the changed files of evaluations that the successor will be able to run.
        self._wanted: dict[str, tuple[str, ...]] = {}

    def want(self, evaluation: Evaluation, error: CodeMismatchError, *, again: bool) -> bool:
        """Want to leave for an evaluation, unless a successor would have other files than the submitter as well.

        again: see `CodeMatch.can_be_read`

        Returns whether a successor is going to read the submitter's files.
        """
        context = self._context
        # Without a supervisor nobody starts a successor.
        if context.options.supervisor is None or not context.code_match.can_be_read(evaluation, again=again):
            return False
        if evaluation.uid not in self._wanted:
            self._wanted[evaluation.uid] = error.files
            logger.info("%s: this worker process loads the new files when it is idle", _changed(error.files))
        return True

    def leave_if_idle(self, running: Sequence[Evaluation]) -> bool:
        """Leave if a running evaluation needs it, and this process can run none of them. Returns whether it leaves."""
        wanted = {each.uid: self._wanted[each.uid] for each in running if each.uid in self._wanted}
        self._wanted = wanted
        if not wanted or any(self._is_run_here(each) for each in running):
            return False
        files = tuple(dict.fromkeys(file for files in wanted.values() for file in files))
        self._leave(f"reloaded: {_changed(files)}")
        return True

    def _is_run_here(self, evaluation: Evaluation) -> bool:
        context = self._context
        if (
            evaluation.status is not EvaluationStatus.RUNNING
            or not evaluation.config.submitted
            or context.dispatcher.queue_of(evaluation) not in context.options.queues
        ):
            return False
        try:
            context.code_match.match(evaluation)
        except CodeMismatchError:
            return False
        return bool(evaluation.counts.pending) or not nobody_runs(context.store, evaluation)


def _changed(files: Sequence[str]) -> str:
    return f"{files[0]} has changed" if len(files) == 1 else f"{counted(len(files), 'file')} have changed"
