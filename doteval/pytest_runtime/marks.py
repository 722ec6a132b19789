"""What `@pytest.mark.doteval(...)` says of an evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

from doteval.core.queues_and_devices import check_queue
from doteval.errors import EvaluationFileError, UsageError

if TYPE_CHECKING:
    from doteval.pytest_runtime.items import EvaluationItem

MARK = "doteval"
_KNOWN = ("queue",)


def queue_of(item: EvaluationItem) -> str | None:
    """The queue that the nearest mark names: of parameters, function, class, module. None if none does.

    Raises EvaluationFileError if a mark cannot be used.
    """
    for mark in _marks(item):
        unknown = [*map(repr, mark.args), *(name for name in mark.kwargs if name not in _KNOWN)]
        if unknown:
            raise _wrong(item, f"it does not take {', '.join(unknown)}", f"It takes {', '.join(_KNOWN)}.")
        if "queue" in mark.kwargs:
            try:
                return check_queue(mark.kwargs["queue"])
            except UsageError as error:
                raise _wrong(item, error.message, error.remedy) from None
    return None


def meant_for(items: Sequence[EvaluationItem], queues: Collection[str]) -> list[EvaluationItem]:
    """The evaluations whose rows a worker process that serves `queues` has to expect.

    Those whose mark names one of them. The others go where a submission says, which may be any queue
    that no mark names.
    """
    named = [queue_of(item) for item in items]
    takes_others = any(queue not in named for queue in queues)
    return [
        item for item, queue in zip(items, named, strict=True) if (takes_others if queue is None else queue in queues)
    ]


def _marks(item: EvaluationItem) -> Iterator[pytest.Mark]:
    # pytest puts those of parameters after those of the function.
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        yield from (mark for mark in callspec.marks if mark.name == MARK)
    yield from item.iter_markers(MARK)


def _wrong(item: EvaluationItem, what: str, remedy: str | None) -> EvaluationFileError:
    return EvaluationFileError(
        f"the mark {MARK} of {item.evaluation_path}::{item.evaluation_name} cannot be used: {what}", remedy=remedy
    )
