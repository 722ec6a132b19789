"""Places the lives of worker processes on a line from the beginning of an experiment to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from doteval.store.experiment_contents import ServingWorker

# The length of the line, in the units of its SVG.
LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class WorkerSpan:
    """A worker process with its place on the line, as x and width.

    loads: the set-ups of its session fixtures, with whether they failed.
    """

    worker: ServingWorker
    alive: tuple[float, float]
    loads: tuple[tuple[float, float, bool], ...]


def worker_spans(workers: Sequence[ServingWorker], begin: datetime, end: datetime) -> list[WorkerSpan]:
    """Place worker processes on the line. They may serve other experiments before and after."""
    first = min([begin, *(max(begin, each.started_at) for each in workers)])
    last = max([end, *(each.wrote_at for each in workers if each.wrote_at is not None)])
    seconds = max((last - first).total_seconds(), 1e-3)

    def place(start: float, stop: float) -> tuple[float, float]:
        x, right = (min(1.0, max(0.0, (each - first.timestamp()) / seconds)) for each in (start, stop))
        # What is short is still to be seen.
        width = max(right - x, 0.003)
        return round(LENGTH * min(x, 1 - width), 1), round(LENGTH * width, 1)

    return [
        WorkerSpan(
            each,
            place(each.started_at.timestamp(), each.until.timestamp()),
            tuple(
                (*place(load.ended_at.timestamp() - load.seconds, load.ended_at.timestamp()), load.error is not None)
                for load in each.loads
            ),
        )
        for each in workers
    ]
