"""Encodes values as JSON text and decodes them: the store's form of rows, prompts, responses and scores.

Plain JSON stays plain JSON. Other values become a tagged object, ``{"$type": ..., "value": ...}``: bytes, tuples, sets,
dates and times, Decimal, complex, enums, dataclass instances, paths, UUIDs, floats that are not finite, ints beyond 64
bits, mappings whose keys are not text, text with lone surrogates, and values of NumPy, pandas and Pillow
(`doteval.core.library_values`). Decoding runs no code of the user and imports none of it: a dataclass instance or an
enum member is restored only if its module is imported already, and becomes a mapping with the type's name otherwise.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson

from doteval.core.library_values import RESTORE, TAG, NoFormError, tag_library_value
from doteval.errors import UnstorableValueError

# orjson refuses more than 254 levels, and a tag takes up to three.
_DEEPEST = 80

_EXACT = frozenset({str, int, bool, type(None)})
_TEXT = frozenset({str})


def encode(value: Any) -> str:
    """Encode a value as JSON text. Equal values give equal texts.

    Raises UnstorableValueError: the value cannot be stored. It names the place inside the value and the type, never
        the content.

    >>> encode({"pair": (1, 2)})
    '{"pair":{"$type":"tuple","value":[1,2]}}'
    """
    if _is_plain(value):
        try:
            return orjson.dumps(value).decode()
        except (orjson.JSONEncodeError, RecursionError):
            # A huge int, a lone surrogate or deep nesting: `_tagged` handles it, or raises an error that names it.
            pass
    return orjson.dumps(_tagged(value, (), 0)).decode()


def encode_columns(values: Mapping[str, Any]) -> str:
    """Encode the values of one row by column. Raises UnstorableValueError: it names the column."""
    return encode(values if type(values) is dict else dict(values))


def decode(text: str) -> Any:
    """Decode the text that `encode` returned. Raises ValueError: the text is not JSON.

    >>> decode(encode({"pair": (1, 2)}))
    {'pair': (1, 2)}
    """
    value = orjson.loads(text)
    return _untagged(value) if '"$type"' in text else value


def decode_all(texts: Sequence[str]) -> list[Any]:
    """Decode several texts at once.

    >>> decode_all([encode("a"), encode((1, 2))])
    ['a', (1, 2)]
    """
    found: list[Any] = decode(f"[{','.join(texts)}]")
    return found


def key_of(value: Any) -> str:
    """The key of a row that is named by a value of it: a text as it is, another value as JSON.

    >>> key_of("17"), key_of(17)
    ('17', '17')
    """
    return value if isinstance(value, str) else encode(value)


def content_key(encoded: str) -> str:
    """Hash encoded content: 32 hexadecimal characters of BLAKE2b."""
    return blake2b(encoded.encode(), digest_size=16).hexdigest()


# Characters that a database refuses (NUL, lone surrogates) are replaced by SUB and a name, which can be undone.
_HARMFUL = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a(0|s|u[0-9a-f]{4})")


def escape_text(text: str) -> str:
    """Replace NUL and lone surrogates in a text; `unescape_text` restores it."""
    return _HARMFUL.sub(_escape, text) if _HARMFUL.search(text) else text


def unescape_text(text: str) -> str:
    """Restore the text that `escape_text` was given."""
    return _ESCAPED.sub(_unescape, text) if "\x1a" in text else text


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character == "\x00":
        return "\x1a0"
    return "\x1as" if character == "\x1a" else f"\x1au{ord(character):04x}"


def _unescape(match: re.Match[str]) -> str:
    name = match[1]
    if name == "0":
        return "\x00"
    return "\x1a" if name == "s" else chr(int(name[1:], 16))


def _is_plain(value: Any, depth: int = 0) -> bool:
    # Types are compared in bulk, since this runs for every row, and most rows are flat.
    kind = type(value)
    if kind in _EXACT:
        return True
    if kind is float:
        return math.isfinite(value)
    if depth > _DEEPEST:
        return False
    if kind is dict:
        if not value:
            return True
        if not _TEXT.issuperset(map(type, value)) or TAG in value:
            return False
        members: Iterable[Any] = value.values()
    elif kind is list:
        members = value
    else:
        return False
    if _EXACT.issuperset(map(type, members)):
        return True
    return all(_is_plain(member, depth + 1) for member in members)


_Place = tuple[Any, ...]


def _tagged(value: Any, place: _Place, depth: int) -> Any:
    if depth > _DEEPEST:
        raise UnstorableValueError(
            f"a value {_where(place[:4])}… is nested more than {_DEEPEST} levels deep, or contains itself",
            remedy="Flatten it, or store it as text.",
        )
    if isinstance(value, Enum):
        return {TAG: "enum", "name": _type_name(type(value)), "value": _tagged(value.value, place, depth + 1)}
    try:
        of_library = tag_library_value(value, lambda member, at: _tagged(member, (*place, at), depth + 1))
    except NoFormError as error:
        raise UnstorableValueError(f"{error} {_where(place)} cannot be stored", remedy=error.remedy) from error
    if of_library is not None:
        return of_library
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _tagged_text(str(value) if type(value) is str else str.__str__(value))
    if isinstance(value, int):
        number = int(value)
        return number if -(2**63) <= number < 2**64 else {TAG: "int", "value": f"{number:x}"}
    if isinstance(value, float):
        real = float(value)
        return real if math.isfinite(real) else {TAG: "float", "value": repr(real)}
    if isinstance(value, dict):
        return _tagged_mapping(value, place, depth)
    if isinstance(value, list):
        return [_tagged(member, (*place, at), depth + 1) for at, member in enumerate(value)]
    if isinstance(value, tuple):
        return {TAG: "tuple", "value": [_tagged(member, (*place, at), depth + 1) for at, member in enumerate(value)]}
    if isinstance(value, (set, frozenset)):
        members = sorted((_tagged(member, (*place, "…"), depth + 1) for member in value), key=orjson.dumps)
        return {TAG: "set" if isinstance(value, set) else "frozenset", "value": members}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {TAG: "bytes", "value": base64.b64encode(value).decode()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: _tagged(getattr(value, field.name), (*place, field.name), depth + 1)
            for field in dataclasses.fields(value)
        }
        return {TAG: "dataclass", "name": _type_name(type(value)), "value": fields}
    if isinstance(value, PurePath):
        kind = "path" if isinstance(value, Path) else type(value).__name__
        return {TAG: kind, "value": _tagged_text(str(value))}
    simple = _SIMPLE.get(type(value))
    if simple is not None:
        return {TAG: type(value).__name__, "value": simple(value)}
    raise UnstorableValueError(
        f"a value of type {_type_name(type(value)).replace(':', '.')} {_where(place)} cannot be stored",
        remedy="Make it text, a number, a list, a mapping or a dataclass first.",
    )


def _tagged_text(text: str) -> Any:
    escaped = escape_text(text)
    # JSON holds NUL and SUB as they are; only lone surrogates need the tag.
    return text if escaped == text or text.isascii() else {TAG: "text", "value": escaped}


def _tagged_mapping(value: dict[Any, Any], place: _Place, depth: int) -> Any:
    if TAG not in value and all(type(key) is str and _tagged_text(key) is key for key in value):
        return {key: _tagged(member, (*place, key), depth + 1) for key, member in value.items()}
    pairs = [
        [_tagged(key, (*place, "a key"), depth + 1), _tagged(member, (*place, key), depth + 1)]
        for key, member in value.items()
    ]
    return {TAG: "dict", "value": pairs}


def _datetime_value(value: datetime) -> Any:
    zone = getattr(value.tzinfo, "key", None)
    return [value.isoformat(), zone, value.fold] if zone or value.fold else value.isoformat()


_SIMPLE: dict[type, Callable[[Any], Any]] = {
    datetime: _datetime_value,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: lambda value: [value.days, value.seconds, value.microseconds],
    Decimal: str,
    complex: lambda value: [repr(value.real), repr(value.imag)],
    UUID: str,
}


def _type_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _where(place: _Place) -> str:
    """The place as ``['meta'][3]``. Other keys than text and numbers could be content: only their type is named."""
    if not place:
        return "(the whole value)"
    steps = (f"[{step!r}]" if isinstance(step, (str, int)) else f"[<{type(step).__name__}>]" for step in place)
    return "at " + "".join(steps)


def _untagged(value: Any) -> Any:
    if type(value) is list:
        return [_untagged(member) for member in value]
    if type(value) is not dict:
        return value
    if TAG not in value:
        return {key: _untagged(member) for key, member in value.items()}
    restore = _RESTORE.get(value[TAG])
    return value if restore is None else restore(value)


def _members(tagged: Mapping[str, Any]) -> list[Any]:
    return [_untagged(member) for member in tagged["value"]]


def _restore_datetime(tagged: Mapping[str, Any]) -> datetime:
    stored = tagged["value"]
    if isinstance(stored, str):
        return datetime.fromisoformat(stored)
    written, zone, fold = stored
    moment = datetime.fromisoformat(written)
    if zone is None:
        return moment.replace(fold=fold)
    try:
        return moment.astimezone(ZoneInfo(zone))
    except ZoneInfoNotFoundError:
        # This machine lacks the time zone; the moment itself is exact either way.
        return moment


def _known_type(name: str) -> type[Any] | None:
    """The type of this name, None unless its module is imported already."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for step in path.split("."):
        found = getattr(found, step, None)
    return found if isinstance(found, type) else None


def _restore_enum(tagged: Mapping[str, Any]) -> Any:
    kind = _known_type(tagged["name"])
    value = _untagged(tagged["value"])
    if kind is not None and issubclass(kind, Enum):
        try:
            return kind(value)
        except ValueError:
            # The member was removed from the enum since.
            pass
    return {TAG: tagged["name"], "value": value}


def _restore_dataclass(tagged: Mapping[str, Any]) -> Any:
    kind = _known_type(tagged["name"])
    fields = {name: _untagged(member) for name, member in tagged["value"].items()}
    if dataclasses.is_dataclass(kind) and {field.name for field in dataclasses.fields(kind)} == set(fields):
        # Without __init__: stored data must not run code, and the fields are stored as __init__ left them.
        instance = kind.__new__(kind)
        for name, member in fields.items():
            object.__setattr__(instance, name, member)
        return instance
    return {TAG: tagged["name"], **fields}


def _restore_of_library(
    restore: Callable[[Mapping[str, Any], Callable[[Any], Any]], Any], tagged: Mapping[str, Any]
) -> Any:
    return restore(tagged, _untagged)


_RESTORE: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "bytes": lambda tagged: base64.b64decode(tagged["value"]),
    "tuple": lambda tagged: tuple(_members(tagged)),
    "set": lambda tagged: set(_members(tagged)),
    "frozenset": lambda tagged: frozenset(_members(tagged)),
    "dict": lambda tagged: {_untagged(key): _untagged(member) for key, member in tagged["value"]},
    "text": lambda tagged: unescape_text(tagged["value"]),
    "int": lambda tagged: int(tagged["value"], 16),
    "float": lambda tagged: float(tagged["value"]),
    "complex": lambda tagged: complex(*map(float, tagged["value"])),
    "Decimal": lambda tagged: Decimal(tagged["value"]),
    "UUID": lambda tagged: UUID(tagged["value"]),
    "datetime": _restore_datetime,
    "date": lambda tagged: date.fromisoformat(tagged["value"]),
    "time": lambda tagged: time.fromisoformat(tagged["value"]),
    "timedelta": lambda tagged: timedelta(*tagged["value"]),
    "path": lambda tagged: Path(_untagged(tagged["value"])),
    "PurePosixPath": lambda tagged: PurePosixPath(_untagged(tagged["value"])),
    "PureWindowsPath": lambda tagged: PureWindowsPath(_untagged(tagged["value"])),
    "enum": _restore_enum,
    "dataclass": _restore_dataclass,
    **{kind: functools.partial(_restore_of_library, restore) for kind, restore in RESTORE.items()},
}
