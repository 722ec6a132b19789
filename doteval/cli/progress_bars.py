"""Bars on a terminal, one for each running evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.console import Console, RenderableType
from rich.progress import Progress, Task, TaskID
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from doteval.analysis.figures import count, failures, share
from doteval.core.experiments import Evaluation
from doteval.core.wording import counted

# Lines of the terminal that are kept free of bars.
_OTHER_LINES = 6
# Widths in columns of the terminal. Those of the rate and the time left keep the bars from moving sideways.
_LEAST_NAME, _MOST_NAME = 12, 40
_LEAST_BAR, _MOST_BAR = 8, 60
_RATE, _TIME_LEFT = 11, 5


class ProgressBars:
    """One bar for each running evaluation, as many as the terminal has room for."""

    def __init__(self, output: Console) -> None:
        self._console = output
        self._progress = _BarLines(console=output, transient=True)
        self._tasks: dict[int, TaskID] = {}

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, running: Sequence[Evaluation], called: dict[int, str], below: Sequence[str] = ()) -> None:
        """Draw the bars. `called` has the name of each evaluation by its id, `below` are lines below the bars."""
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
                failures=failures(counts).removeprefix(", "),
            )
        more = len(running) - len(shown)
        others = [f"and {counted(more, 'evaluation')} more"] if more else []
        self._progress.footer = "\n".join([*others, *below[:_OTHER_LINES]])
        self._progress.refresh()


class _BarLines(Progress):
    """Draws a line for each task: name, bar and figures.

    On a narrow terminal the bar goes first, then the time left, then the rate, and names are shortened. Counts are
    always whole.
    """

    footer = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.tasks:
            yield self.make_tasks_table(self.tasks)
        if self.footer:
            yield Text(self.footer, style="dim")

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        shown = [task for task in tasks if task.visible]
        room = self.console.width - _LEAST_NAME
        shares = _FigureColumn([str(task.fields["share"]) for task in shown])
        room -= shares.width + 1
        failed = _FigureColumn([str(task.fields["failures"]) for task in shown], style="red", justify="left")
        # Where they do not fit on one line, they continue on the next one, between words.
        failed.width = max(_longest(failed.words), min(failed.width, room - 1))
        room -= failed.width + 1
        optional = []
        for figures in (
            _FigureColumn([_rate(task) for task in shown], style="dim", least=_RATE),
            _FigureColumn([_time_left(task) for task in shown], style="cyan", least=_TIME_LEFT),
        ):
            if figures.width < room:
                optional.append(figures)
                room -= figures.width + 1
        room = max(room, 0) + _LEAST_NAME
        names = min(room, _MOST_NAME, _longest(task.description for task in shown))
        bar = min(room - names - 1, _MOST_BAR)
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis", width=names)
        if bar >= _LEAST_BAR:
            table.add_column(width=bar)
        every = [shares, *optional, failed]
        for figures in every:
            table.add_column(justify=figures.justify, width=figures.width, style=figures.style)
        for position, task in enumerate(shown):
            bars = [_bar(task, bar)] if bar >= _LEAST_BAR else []
            table.add_row(task.description, *bars, *(figures.texts[position] for figures in every))
        return table


class _FigureColumn:
    """The texts of one column, and its width."""

    def __init__(
        self, texts: Sequence[str], *, style: str = "", justify: Literal["left", "right"] = "right", least: int = 0
    ) -> None:
        self.texts = texts
        self.style = style
        self.justify = justify
        self.width = max(least, _longest(texts))

    @property
    def words(self) -> list[str]:
        return [word for text in self.texts for word in text.split()]


def _bar(task: Task, width: int) -> ProgressBar:
    return ProgressBar(
        task.total,
        task.completed,
        width=width,
        pulse=task.total is None,
        complete_style="cyan",
        animation_time=task.get_time(),
    )


def _longest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _rate(task: Task) -> str:
    speed = task.finished_speed or task.speed
    return "" if speed is None else f"{count(round(speed))} rows/s"


def _time_left(task: Task) -> str:
    left = task.time_remaining
    if left is None:
        return "-:--"
    minutes, seconds = divmod(round(left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
