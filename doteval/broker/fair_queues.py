"""Lanes: the queues of the broker that row tasks of different experiments travel on side by side.

A worker process takes from the lanes in turn, so that a small experiment does not wait behind a large
one. The set is fixed: every worker process knows all of them, whatever is submitted later. Lanes of
high priority come before all others, those of low priority after all others: Redis is asked in that order
(`FairQueueCycle`); what other brokers send is put in that order (`doteval.worker.priority_pool`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from kombu.utils.scheduling import round_robin_cycle


class Priority(StrEnum):
    """Whose row tasks are taken first. Experiments of one priority share."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


# What a lane's name ends in, by its number. The first has the queue's own name. No queue's own name
# may have the mark: see `doteval.core.queues_and_devices`.
_MARK = "~"
_ENDINGS = ("", "~1", "~2", "~3", "~4", "~5", "~high", "~high1", "~low", "~low1")
FAIR_QUEUES = len(_ENDINGS)


def fair_queue_name(queue: str, lane: int) -> str:
    """The name that the broker knows a lane of a queue by."""
    return f"{queue}{_ENDINGS[lane]}"


def is_fair_queue(name: str) -> bool:
    """Whether the broker's name for a queue is that of a lane other than the first."""
    return _MARK in name


def fair_queue_names(queue: str) -> list[str]:
    return [fair_queue_name(queue, lane) for lane in range(FAIR_QUEUES)]


def fair_queues_of(priority: Priority) -> list[int]:
    """The numbers of the lanes of a priority."""
    return [lane for lane in range(FAIR_QUEUES) if priority_of(lane) is priority]


def priority_of(lane: int) -> Priority:
    return _priority(_ENDINGS[lane])


def _priority(name: str) -> Priority:
    _, mark, ending = name.rpartition(_MARK)
    word = ending.rstrip("0123456789")
    return Priority(word) if mark and word else Priority.NORMAL


_ORDER = {priority: place for place, priority in enumerate(Priority)}


def urgency(name: str) -> int:
    """The place of a lane, by the broker's name for it, among those that wait: the smallest number comes first."""
    return _ORDER[_priority(name)]


class FairQueueCycle(round_robin_cycle):
    """The order in which kombu's Redis transport asks lanes for a message: by priority, then in turn."""

    def update(self, it: Iterable[str]) -> None:
        # Whoever was asked last stays last: a worker process that begins to consume starts no new round.
        known = [name for name in self.items if name in set(it)]
        super().update([*known, *(name for name in it if name not in known)])  # type: ignore[no-untyped-call]

    def consume(self, n: int) -> Any:
        taken = super().consume(n)  # type: ignore[no-untyped-call]
        return sorted(taken, key=urgency)
