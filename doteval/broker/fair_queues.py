"""Fair queues: the sub-queues of a queue that share workers between experiments.

A worker process takes row tasks from the fair queues in turn, so that a small experiment does not wait behind a large
one. Their number is fixed, so that every worker process knows all of them, whatever is submitted later. Fair queues of
high priority come before all others, those of low priority after all others: from Redis, messages are fetched in that
order (`FairQueueCycle`); messages that another broker sends are sorted (`doteval.worker.priority_pool`).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from kombu.utils.scheduling import round_robin_cycle


class Priority(StrEnum):
    """Which row tasks are taken first. Experiments of the same priority share the workers."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


# The end of a fair queue's name, by its number. The first one has the name of the queue itself, which may not contain
# the mark: see `doteval.core.queues_and_devices`.
_MARK = "~"
_ENDINGS = ("", "~1", "~2", "~3", "~4", "~5", "~high", "~high1", "~low", "~low1")
FAIR_QUEUES = len(_ENDINGS)


def fair_queue_name(queue: str, number: int) -> str:
    """The broker's name for a fair queue of a queue.

    >>> fair_queue_name("gpu", 0), fair_queue_name("gpu", 1)
    ('gpu', 'gpu~1')
    """
    return f"{queue}{_ENDINGS[number]}"


def is_fair_queue(name: str) -> bool:
    """Whether `name` is the broker's name for a fair queue other than the first of its queue."""
    return _MARK in name


def fair_queue_names(queue: str) -> list[str]:
    """The broker's names for all fair queues of a queue."""
    return [fair_queue_name(queue, number) for number in range(FAIR_QUEUES)]


def fair_queues_of(priority: Priority) -> list[int]:
    """The numbers of the fair queues of a priority."""
    return [number for number in range(FAIR_QUEUES) if priority_of(number) is priority]


def priority_of(number: int) -> Priority:
    """The priority of a fair queue."""
    return _priority(_ENDINGS[number])


def _priority(name: str) -> Priority:
    _, mark, ending = name.rpartition(_MARK)
    word = ending.rstrip("0123456789")
    return Priority(word) if mark and word else Priority.NORMAL


_URGENCY = {priority: position for position, priority in enumerate(Priority)}


def urgency(name: str) -> int:
    """The urgency of a fair queue, by the broker's name for it: the smallest number comes first."""
    return _URGENCY[_priority(name)]


class FairQueueCycle(round_robin_cycle):
    """The order in which kombu's Redis transport fetches from the fair queues: by priority, then round robin."""

    def update(self, it: Iterable[str]) -> None:
        # The order stays as it was: kombu updates the names whenever it begins to consume.
        known = [name for name in self.items if name in set(it)]
        super().update([*known, *(name for name in it if name not in known)])  # type: ignore[no-untyped-call]

    def consume(self, n: int) -> Any:
        taken = super().consume(n)  # type: ignore[no-untyped-call]
        return sorted(taken, key=urgency)
