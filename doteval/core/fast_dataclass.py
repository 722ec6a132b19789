"""A dataclass decorator for values that are made for every row, some of them ten times."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def row_value(cls: type[Class]) -> type[Class]:
    """Make a dataclass that is frozen for the type checker only.

    A dataclass that is frozen at run time takes three times as long to create, since each field is set by a call. With
    a handful of such values for every row, that was a tenth of the time of a no-op row.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
