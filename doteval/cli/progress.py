"""The progress of evaluations: bars on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from doteval.cli.terminal import STATUS_STYLES, console, count, duration, few, names, plain, share
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.store import Store

# Seconds between two lines when there is no terminal.
_QUIET_SECONDS = 10.0
# Lines of the terminal that are kept free of bars.
_OTHER_LINES = 6


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
        self._bars = _Bars(self._console) if self._console.is_terminal else None
        self._ended: set[int] = set()
        self._started: dict[int, tuple[float, int]] = {}
        self._last_lines: float | None = None

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
            (plain(experiment.name), "bold"),
            f": {few(len(evaluations), 'evaluation')}",
            f" on {few(workers, 'worker process')}" if workers else "",
        )
        self._console.print(line)
        resumed = sum(evaluation.counts.finished for evaluation in evaluations)
        if resumed:
            self._console.print(f"Continuing: {few(resumed, 'row')} already have a result")
        self.moved(evaluations)

    def moved(self, evaluations: Sequence[Evaluation]) -> None:
        """Show the current counts of the evaluations."""
        now = self._clock()
        called = names(evaluations)
        for evaluation in evaluations:
            self._started.setdefault(evaluation.id, (now, evaluation.counts.finished))
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
            self._bars.show(running, called)
        elif running and (self._last_lines is None or now - self._last_lines >= _QUIET_SECONDS):
            self._last_lines = now
            for evaluation in running:
                self._console.print(self._running_line(evaluation, called[evaluation.id], now))

    def ended(self, store: Store, evaluations: Sequence[Evaluation]) -> None:
        """Call `at_the_end`: all evaluations have ended."""
        if self._at_the_end is not None:
            self._at_the_end(store, evaluations)

    def note(self, line: str) -> None:
        """Print a line that stays above the bars."""
        self._console.print(Text(plain(line), style="yellow"), soft_wrap=not self._console.is_terminal)

    def _running_line(self, evaluation: Evaluation, name: str, now: float) -> str:
        since, finished = self._started[evaluation.id]
        made = evaluation.counts.finished - finished
        rate = f", {made / (now - since):,.1f} rows/s" if made and now > since else ""
        return f"{name}: {share(evaluation.counts)} rows{_failures(evaluation)}{rate}"

    def _end_line(self, evaluation: Evaluation, name: str, now: float) -> Text:
        since, finished = self._started[evaluation.id]
        made = evaluation.counts.finished - finished
        time_taken = f" in {duration(now - since)}" if made else ""
        mark = "✓" if evaluation.status is EvaluationStatus.COMPLETED else "✗"
        line = Text.assemble(
            (f"{mark} {evaluation.status.value}", STATUS_STYLES[evaluation.status]),
            f"  {name}: {few(evaluation.counts.finished, 'row')}{_failures(evaluation)}{time_taken}",
        )
        if evaluation.reason:
            line.append(f"\n  {plain(evaluation.reason)}")
        return line


def _failures(evaluation: Evaluation) -> str:
    counts = evaluation.counts
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{failed}, {counts.skipped:,} skipped" if counts.skipped else failed


class _Bars:
    """One bar for each running evaluation, as many as the terminal has room for."""

    def __init__(self, output: Console) -> None:
        self._console = output
        self._progress = _ProgressWithFooter(
            TextColumn("{task.description}", table_column=Column(overflow="ellipsis", no_wrap=True, max_width=40)),
            BarColumn(bar_width=None, complete_style="cyan"),
            TextColumn("{task.fields[share]}", justify="right"),
            # Fixed widths keep the bars from moving sideways.
            _RateColumn(table_column=Column(min_width=11)),
            TimeRemainingColumn(compact=True, table_column=Column(min_width=5)),
            TextColumn("{task.fields[failures]}", style="red"),
            console=output,
            transient=True,
            expand=output.width <= 100,
        )
        self._tasks: dict[int, TaskID] = {}

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, running: Sequence[Evaluation], called: dict[int, str]) -> None:
        room = max(1, self._console.height - _OTHER_LINES)
        shown = running[:room]
        for gone in self._tasks.keys() - {evaluation.id for evaluation in shown}:
            self._progress.remove_task(self._tasks.pop(gone))
        for evaluation in shown:
            counts = evaluation.counts
            if evaluation.id not in self._tasks:
                self._tasks[evaluation.id] = self._progress.add_task(
                    called[evaluation.id], total=None, completed=counts.finished, share="", failures=""
                )
            self._progress.update(
                self._tasks[evaluation.id],
                total=counts.total,
                completed=counts.finished,
                share=share(counts),
                failures=_failures(evaluation).removeprefix(", "),
            )
        more = len(running) - len(shown)
        self._progress.footer = f"and {few(more, 'evaluation')} more" if more else ""
        self._progress.refresh()


class _ProgressWithFooter(Progress):
    footer = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.footer:
            yield Text(self.footer, style="dim")


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{count(round(speed))} rows/s", style="dim", justify="right")
