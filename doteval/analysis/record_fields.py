"""The values of a record by the fields that filters name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doteval.core.filters import FieldKind, FilterField
from doteval.core.results import Record
from doteval.core.row_labels import label_of


def record_value(record: Record, field: FilterField, *, attempts: int | None = None) -> Any:
    """The value of a field of a record, None where it has none.

    attempts: how often the row was tried, which a record does not know
    """
    if field.kind is FieldKind.ROW:
        return record.row.values.get(field.name)
    if field.kind is FieldKind.METADATA:
        return record.outcome.metadata.get(field.name)
    if field.kind is FieldKind.SCORE:
        return next((score.value for score in record.outcome.scores if score.name == field.name), None)
    return attempts if field.name == "attempts" else _RESULT_VALUES[field.name](record)


def _of_error(name: str) -> Callable[[Record], Any]:
    return lambda record: None if record.outcome.error is None else str(getattr(record.outcome.error, name))


def _cost(record: Record) -> float | None:
    known = [usage.cost for usage in record.outcome.usage if usage.cost is not None]
    return sum(known) if known else None


def _used(name: str) -> Callable[[Record], int]:
    return lambda record: sum(getattr(usage, name) for usage in record.outcome.usage)


_prompts, _completions = _used("prompt_tokens"), _used("completion_tokens")
_RESULT_VALUES: dict[str, Callable[[Record], Any]] = {
    "index": lambda record: record.row.index,
    "key": lambda record: record.row.key,
    "sample": lambda record: record.row.sample,
    "status": lambda record: record.outcome.status.value,
    "error": _of_error("message"),
    "error_type": _of_error("type"),
    "error_class": _of_error("error_class"),
    "prompt": lambda record: record.outcome.prompt,
    "response": lambda record: record.outcome.model_response,
    "tokens": lambda record: _prompts(record) + _completions(record),
    "prompt_tokens": _prompts,
    "completion_tokens": _completions,
    "cost": _cost,
    "seconds": lambda record: record.outcome.seconds,
    "worker": lambda record: record.worker,
    "label": lambda record: label_of(record.labels),
}
