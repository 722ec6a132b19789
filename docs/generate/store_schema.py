"""The page of the store's tables, and a picture of how they refer to each other."""

from __future__ import annotations

import inspect
import re

from sqlalchemy import Column, Table, UniqueConstraint
from sqlmodel import SQLModel

from docs.generate.markdown import MissingTextError, code, docstring, page_of, table
from doteval.store import tables

# The meanings of columns that several tables share. The docstring of a table may give another.
SHARED = {
    "id": "the key, made by the database.",
    "experiment_id": "the experiment.",
    "evaluation_id": "the evaluation.",
    "row_index": "the position of the row in its dataset, from 0.",
    "sample": "the number of the sample, from 0.",
    "execution": "a number that names one execution of the row.",
    "position": "its place among those of the same key, from 0.",
    "worker_id": "the worker process; null or 0 without one.",
    "created_at": "when it was begun.",
    "started_at": "when it began.",
    "finished_at": "when it ended.",
    "seconds": "how long it took.",
    "status": "done, failed or skipped.",
    "prompt": "JSON, null without one.",
    "model_response": "JSON, null without one.",
    "extra": "JSON, the metadata of the result, null without any.",
    "error_type": "the type of the exception, null without an error.",
    "error_message": "its message.",
    "error_class": "evaluation, infrastructure, timeout, crash or quota.",
    "traceback": "its traceback.",
    "error": "what went wrong, null if nothing did.",
    "note": "free text.",
    "model": "the model, as the client named it.",
    "endpoint": "the path of the URL.",
    "client": "identifies the account without revealing its key.",
    "prompt_tokens": "tokens of prompts.",
    "completion_tokens": "tokens of replies.",
    "cached_tokens": "those of the prompt that the provider had in its own cache.",
    "reasoning_tokens": "those of the reply that it spent on reasoning.",
    "tokens": "an estimate of tokens of prompt and reply, for budgets.",
    "judge": "whether a judge asked.",
    "cost": "US dollars, null if the model has no price.",
}
# A docstring of a table also tells of columns within its paragraphs, as "`worker_id` 0 stands for".
_NAMED = re.compile(r"`(\w+)`")
_MEANING = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): (.+)$")


def page() -> str:
    return page_of(
        "The tables of the result store",
        "Everything that doteval keeps is in these tables, on SQLite and on PostgreSQL. Queries of your own are better asked "
        "with [`doteval query`](../reading-results.md#in-sql), whose views stay the same from version to version: the tables "
        "are doteval's own, and change with the schema version that `doteval db current` prints.",
        "Columns with JSON are text. Times are seconds since 1970 (UTC) by the database's clock.",
        "![Each table with its key, and lines to the tables that it refers to](store-schema.svg)",
        *(_table(each) for each in tables.ALL),
        "## The version",
        "The table `alembic_version` holds the schema version. Opening a SQLite file upgrades it, after a copy; PostgreSQL is "
        "upgraded by `doteval db upgrade`.",
    )


def _table(found: Table) -> str:
    model = _model_of(found)
    intro, meanings = _split(inspect.getdoc(model) or "")
    unknown = meanings.keys() - found.columns.keys()
    if not intro or unknown:
        raise MissingTextError(f"{model.__name__} has no docstring, or one that names other columns: {unknown}")
    lines = [(code(column.name), _type(column), _meaning(column, intro, meanings)) for column in found.columns]
    keys = [", ".join(code(column.name) for column in found.primary_key)]
    unique = [
        ", ".join(code(column.name) for column in each.columns)
        for each in found.constraints
        if isinstance(each, UniqueConstraint)
    ]
    unique += [", ".join(code(c.name) for c in each.columns) for each in found.indexes if each.unique]
    about = f"Key: {keys[0]}." + "".join(f" Unique: {names}." for names in sorted(unique))
    return f"## `{found.name}`\n\n{docstring(intro)}\n\n{table(['column', 'type', 'meaning'], lines)}\n\n{about}"


def _model_of(found: Table) -> type[SQLModel]:
    return next(each for each in SQLModel.__subclasses__() if getattr(each, "__table__", None) is found)


def _split(text: str) -> tuple[str, dict[str, str]]:
    """The paragraphs of a docstring, and the meanings of columns in its list."""
    paragraphs: list[str] = []
    meanings: dict[str, str] = {}
    for paragraph in text.split("\n\n"):
        items = re.split(r"\n(?! )", paragraph)
        found = [_MEANING.match(" ".join(item.split())) for item in items]
        if not all(found):
            paragraphs.append(paragraph)
            continue
        for each in filter(None, found):
            meanings |= dict.fromkeys(each[1].split(", "), each[2])
    return "\n\n".join(paragraphs), meanings


def _meaning(column: Column[object], intro: str, meanings: dict[str, str]) -> str:
    name = column.name
    if name in meanings:
        return meanings[name].replace("``", "`").replace("None", "null")
    if name in SHARED:
        return SHARED[name]
    if name in _NAMED.findall(intro):
        return "see above."
    raise MissingTextError(f"{column.table.name}.{name} has no meaning in the docstring of its table")


def _type(column: Column[object]) -> str:
    kind = {"SafeText": "text", "TEXT": "text", "LongId": "bigint", "FLOAT": "double"}
    name = type(column.type).__name__
    shown = kind.get(name) or kind.get(str(column.type)) or str(column.type).lower()
    shown = {"blob": "bytes", "double": "double"}.get(shown, shown)
    return f"{shown}, may be null" if column.nullable else shown


# The picture is a tree from left to right: each table hangs on the one that its columns name most exactly.

_REFERENCES = {
    ("experiment_id",): "experiment",
    ("evaluation_id",): "evaluation",
    ("worker_id",): "worker",
    ("evaluation_id", "row_index"): "row",
    ("evaluation_id", "row_index", "sample"): "result",
}
_WIDTH, _HEIGHT, _GAP, _EDGE = 168, 44, 46, 16


def picture() -> str:
    """An SVG with a box for each table, which has its name and what it adds to the key of the table it hangs on."""
    parents = {each.name: _parent(each) for each in tables.ALL}
    boxes: list[str] = []
    below = _EDGE
    for root in (name for name, parent in parents.items() if parent is None):
        below = _draw(root, 0, below, parents, boxes)
    deepest = max(_depth(name, parents) for name in parents)
    width = 2 * _EDGE + deepest * (_WIDTH + _GAP) + _WIDTH
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {below}" width="{width}" height="{below}" role="img" font-family="system-ui, sans-serif">',
            "<title>The tables of the result store</title>",
            f'<rect width="{width}" height="{below}" rx="8" fill="#ffffff"/>',
            *boxes,
            "</svg>\n",
        ]
    )


def _parent(found: Table) -> str | None:
    columns = {column.name for column in found.columns if not column.nullable}
    # A worker process comes last: what it did for an evaluation belongs there.
    named = [
        (len(names), name != "worker", name)
        for names, name in _REFERENCES.items()
        if columns.issuperset(names) and name != found.name
    ]
    return max(named)[-1] if named else None


def _depth(name: str, parents: dict[str, str | None]) -> int:
    parent = parents[name]
    return 0 if parent is None else 1 + _depth(parent, parents)


def _draw(name: str, depth: int, top: int, parents: dict[str, str | None], boxes: list[str]) -> int:
    """Draw a table and those that hang on it, from `top` down; return where the next one may begin."""
    left = _EDGE + depth * (_WIDTH + _GAP)
    found = next(each for each in tables.ALL if each.name == name)
    parent = parents[name]
    inherited = {names for names, target in _REFERENCES.items() if target == parent}
    own = [
        column.name
        for column in found.primary_key
        if column.name not in {part for names in inherited for part in names}
    ]
    boxes += [
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" fill="#f3f6fa" stroke="#5b7083"/>',
        f'<text x="{left + 10}" y="{top + 18}" font-size="14" font-weight="600" fill="#16212b">{name}</text>',
        f'<text x="{left + 10}" y="{top + 35}" font-size="11" fill="#44525f">{", ".join(own) or "the same key"}</text>',
    ]
    below = top
    for number, child in enumerate(each for each, above in parents.items() if above == name):
        middle, at = left + _WIDTH + _GAP // 2, below + _HEIGHT // 2
        begin = f"M{left + _WIDTH} {top + _HEIGHT // 2} H{middle}" if not number else f"M{middle} {top + _HEIGHT // 2}"
        boxes.append(f'<path d="{begin} V{at} H{left + _WIDTH + _GAP}" fill="none" stroke="#5b7083"/>')
        below = _draw(child, depth + 1, below, parents, boxes)
    return max(below, top + _HEIGHT + 12)
