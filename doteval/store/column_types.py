"""The types of columns that all tables share."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import BigInteger, Dialect, Integer, Table, Text, TypeDecorator
from sqlalchemy.types import TypeEngine
from sqlmodel import SQLModel

from doteval.core.json_codec import escape_text, unescape_text


class SafeText(TypeDecorator[str]):
    """Text that may hold NUL and lone surrogates, which databases refuse; they are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else escape_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else unescape_text(value)


class LongId(TypeDecorator[int]):
    """An autoincrement key of 64 bits. SQLite needs a column declared INTEGER for that, which has 64 bits there."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())


def table_of(model: type[SQLModel]) -> Table:
    """The table of a model for SQLAlchemy Core."""
    return cast(Table, cast(Any, model).__table__)
