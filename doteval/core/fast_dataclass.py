"""Values that are made for every row, some of them ten times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def row_value(cls: type[Class]) -> type[Class]:
    """A dataclass that is frozen for the type checker only.

    At run time a frozen one takes three times as long to make, since each field is set by a call: with a handful of
    values for every row that was a tenth of what a row takes.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
