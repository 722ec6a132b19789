"""The publish cursor of an evaluation: up to which row its rows are published, on which fair queue, in which round.

It is one number of three digits: the round, the fair queue (from 1; 0 is none yet), and the index of the first row that
is not published. An index that no row has says that the rows are held back: a dispatcher, in whatever process,
publishes none of them, and looks for no lost ones.
"""

from __future__ import annotations

from doteval.broker.fair_queues import FAIR_QUEUES
from doteval.core.experiments import Evaluation
from doteval.store import Store

_INDEXES = 1 << 40
ROUND = _INDEXES * (FAIR_QUEUES + 1)
_HELD_BACK = _INDEXES - 1


def published_up_to(cursor: int) -> int:
    """The index of the first row that is not published.

    >>> published_up_to(at_index(ROUND + as_digit(2), 7))
    7
    """
    return cursor % _INDEXES


def at_index(cursor: int, index: int) -> int:
    """The cursor with another index, of the same round and fair queue."""
    return cursor - cursor % _INDEXES + index


def fair_queue_of(cursor: int) -> int:
    """The fair queue of the round.

    >>> fair_queue_of(as_digit(2)), fair_queue_of(0)
    (2, 0)
    """
    return max(0, cursor % ROUND // _INDEXES - 1)


def has_fair_queue(cursor: int) -> bool:
    """Whether a fair queue was chosen."""
    return cursor >= _INDEXES


def as_digit(fair_queue: int) -> int:
    """A cursor of the first round on this fair queue, at the first row."""
    return (fair_queue + 1) * _INDEXES


def held_back(cursor: int) -> int:
    """The cursor that holds back the rows, in the same round and fair queue."""
    return at_index(cursor, _HELD_BACK)


def is_held_back(cursor: int) -> bool:
    """Whether the rows are held back.

    >>> is_held_back(held_back(as_digit(2))), is_held_back(as_digit(2))
    (True, False)
    """
    return cursor % _INDEXES == _HELD_BACK


def hold_back(store: Store, evaluation: Evaluation) -> None:
    """Hold back the rows of an evaluation, until a dispatcher releases them or begins it anew."""
    while True:
        cursor = store.evaluations.published(evaluation.id)
        if is_held_back(cursor) or store.evaluations.advance_published(evaluation.id, cursor, held_back(cursor)):
            return
