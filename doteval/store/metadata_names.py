"""Finds the keys that the metadata of results have."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, not_, select

from doteval.core.filters import FieldKind, FilterField
from doteval.core.json_codec import unescape_text
from doteval.store.engine import Database
from doteval.store.filter_sql import FilterCompiler
from doteval.store.tables import RESULT

# Rows in which keys are looked for.
_ROWS = 1_000


def metadata_names(database: Database, evaluation_id: int, also: Sequence[str] = ()) -> list[str]:
    """The keys of the metadata of the first results, and of those in `also` that any result has a value for."""
    compiler = FilterCompiler(database.dialect, evaluation_id)
    of_evaluation = (RESULT.c.evaluation_id == evaluation_id, RESULT.c.extra.is_not(None))
    with database.read() as connection:
        first = connection.scalar(select(func.min(RESULT.c.row_index)).where(*of_evaluation))
        if first is None:
            return []
        query = compiler.metadata_keys().where(*of_evaluation, RESULT.c.row_index < first + _ROWS).distinct()
        names = dict.fromkeys(sorted(map(unescape_text, connection.scalars(query))))
        for other in also:
            value = compiler.field(FilterField(FieldKind.METADATA, other))
            rare = select(RESULT.c.row_index).where(*of_evaluation, not_(value.is_null)).limit(1)
            if other not in names and connection.scalar(rare) is not None:
                names[other] = None
    return list(names)
