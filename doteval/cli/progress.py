"""The progress of evaluations: bars on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.text import Text

from doteval.analysis.figures import failures, names, rows_of
from doteval.cli.progress_bars import ProgressBars
from doteval.cli.terminal import STATUS_STYLES, console
from doteval.core.batches import BatchProgress
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.core.wording import counted, duration
from doteval.store import Store

# Seconds between two lines when there is no terminal.
_QUIET_SECONDS = 10.0
_MARKS = {EvaluationStatus.COMPLETED: "✓", EvaluationStatus.SKIPPED: "-"}


class ProgressDisplay:
    """Shows the progress of evaluations, which its methods report to it. Use it as a context manager.

    It is a `doteval.submission.follow.ProgressObserver`. An evaluation that ends leaves one line and loses its bar.
    When all have ended, `at_the_end` is called with them and their store.
    """

    def __init__(
        self,
        output: Console | None = None,
        *,
        at_the_end: Callable[[Store, Sequence[Evaluation]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = output or console()
        self._at_the_end = at_the_end
        self._clock = clock
        self._bars = ProgressBars(self._console) if self._console.is_terminal else None
        self._ended: set[int] = set()
        # The name of the experiment, which may be renamed meanwhile; None until it is known.
        self.experiment_name: str | None = None
        self._started: dict[int, tuple[float, int]] = {}
        self._last_lines: float | None = None
        self._batches: Mapping[int, BatchProgress] = {}

    def __enter__(self) -> ProgressDisplay:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def began(self, experiment: Experiment, evaluations: Sequence[Evaluation], workers: int) -> None:
        """Print what is about to run, and on how many local worker processes (0: on workers elsewhere)."""
        line = Text.assemble(
            "Experiment ",
            (experiment.name, "bold"),
            f": {counted(len(evaluations), 'evaluation')}",
            f" on {counted(workers, 'worker process')}" if workers else "",
        )
        self._console.print(line)
        resumed = sum(evaluation.counts.finished for evaluation in evaluations)
        if resumed:
            self._console.print(f"Continuing: {counted(resumed, 'row already has', 'rows already have')} a result")
        self.moved(evaluations)

    def moved(self, evaluations: Sequence[Evaluation], batches: Mapping[int, BatchProgress] | None = None) -> None:
        """Show the current counts of the evaluations. batches: the progress of their batches by id."""
        self._batches = batches or {}
        self.experiment_name = next((each.experiment.name for each in evaluations), self.experiment_name)
        now = self._clock()
        called = names(evaluations)
        for evaluation in evaluations:
            since, finished = self._started.get(evaluation.id, (now, evaluation.counts.finished))
            # Fewer once failed rows are made pending, to run again.
            self._started[evaluation.id] = since, min(finished, evaluation.counts.finished)
        ended = [
            evaluation
            for evaluation in evaluations
            if evaluation.status is not EvaluationStatus.RUNNING and evaluation.id not in self._ended
        ]
        running = [evaluation for evaluation in evaluations if evaluation.status is EvaluationStatus.RUNNING]
        # An evaluation that was shown as ended begins again when its failed rows are retried.
        self._ended -= {evaluation.id for evaluation in running}
        for evaluation in ended:
            self._ended.add(evaluation.id)
            self._console.print(self._end_line(evaluation, called[evaluation.id], now))
        if self._bars is not None:
            lines = [f"{called[each.id]}: {line}" for each in running if (line := self._batch_line(each))]
            self._bars.show(running, called, lines)
        elif running and (self._last_lines is None or now - self._last_lines >= _QUIET_SECONDS):
            self._last_lines = now
            for evaluation in running:
                self._console.print(self._running_line(evaluation, called[evaluation.id], now))

    def ended(self, store: Store, evaluations: Sequence[Evaluation]) -> None:
        """Call `at_the_end`: all evaluations have ended."""
        if self._at_the_end is not None:
            self._at_the_end(store, evaluations)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Draw no bars during the block, so that something can be printed, and asked, below what is there."""
        if self._bars is not None:
            self._bars.stop()
        try:
            yield
        finally:
            if self._bars is not None:
                self._bars.start()

    def note(self, line: str) -> None:
        """Print a line that stays above the bars."""
        self._console.print(Text(line, style="yellow"), soft_wrap=not self._console.is_terminal)

    def _running_line(self, evaluation: Evaluation, name: str, now: float) -> str:
        since, finished = self._started[evaluation.id]
        made = evaluation.counts.finished - finished
        rate = f", {made / (now - since):,.1f} rows/s" if made and now > since else ""
        line = self._batch_line(evaluation)
        batches = f"; {line}" if line else ""
        return f"{name}: {rows_of(evaluation.counts)}{failures(evaluation.counts)}{rate}{batches}"

    def _batch_line(self, evaluation: Evaluation) -> str:
        return str(self._batches.get(evaluation.id, ""))

    def _end_line(self, evaluation: Evaluation, name: str, now: float) -> Text:
        since, finished = self._started[evaluation.id]
        made = evaluation.counts.finished - finished
        # The time is that of this command, and so are the rows that it is given for.
        which = f", {made:,} of them" if finished else ""
        time_taken = f"{which} in {duration(now - since)}" if made else ""
        mark = _MARKS.get(evaluation.status, "✗")
        line = Text.assemble(
            (f"{mark} {evaluation.status.value}", STATUS_STYLES[evaluation.status]),
            f"  {name}: {counted(evaluation.counts.finished, 'row')}{failures(evaluation.counts)}{time_taken}",
        )
        if evaluation.reason:
            line.append(f"\n  {evaluation.reason}")
        return line
