"""Encoding and decoding of values: all that rows hold comes back, and stored data runs no code."""

from __future__ import annotations

import enum
import json
import math
import struct
import sys
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from doteval.core.json_codec import content_key, decode, encode, encode_columns, escape_text, unescape_text
from doteval.errors import UnstorableValueError


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(enum.StrEnum):
    LOW = "low"


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclass(frozen=True, slots=True)
class Point:
    x: Any
    y: Any = None


@dataclass
class Strict:
    number: int
    doubled: int = field(init=False)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("negative")
        self.doubled = 2 * self.number


Pair = namedtuple("Pair", "a b")


def iter_nothing() -> Iterator[None]:
    yield


def same(left: Any, right: Any) -> bool:
    """Equal, of the same type throughout, and nan is nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**5000, 0.1, -0.0, 1e308, 5e-324,
        math.inf, -math.inf, "", "text", "nul \x00", "\x1a", "\x1a0", "lone \ud800", "pair \ud83d\ude00", "🙂", "$type",
        [], {}, [[]], {"a": {"b": [1, None]}}, (), (1, (2,)), [(1,), {2}], {1, "a", (2,)}, frozenset({frozenset()}),
        b"", b"\x00\xff", {"$type": "bytes", "value": "x"}, {"$type": 1}, {1: "a", (2, 3): "b", None: "c"},
        {"\ud800": 1}, {Level.LOW: 1},
        datetime(2024, 2, 29, 1, 2, 3, 4), datetime(2024, 1, 1, tzinfo=UTC),  # noqa: DTZ001
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
        date(2024, 2, 29), time(1, 2, 3, 4), time(1, tzinfo=UTC), timedelta(days=-1, microseconds=3),
        Decimal("1.10"), Decimal("-Infinity"), 1 + 2j,
        complex(math.inf, -0.0), UUID(int=5), Path("a/b"), Path("/nul/\udcff"), PurePosixPath("a"),
        PureWindowsPath("C:\\a"),
        Colour.RED, Colour.PAIR, Level.LOW, Bits.A | Bits.B, Point(1, Point(Colour.RED)), Strict(3),
        numpy.float32(0.1), numpy.float64(0.1), numpy.int8(-3), numpy.uint64(2**64 - 1), numpy.bool_(True),
        numpy.str_("a\ud800"), numpy.datetime64("2024-01-01T00:00:00.000000001"), numpy.complex64(1 + 2j),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_come_back_as_they_were(value: Any) -> None:
    text = encode(value)
    json.loads(text)
    text.encode("utf-8")
    assert same(decode(text), value)
    assert same(decode(encode({"a": [value]})), {"a": [value]})


def test_a_zone_keeps_its_name() -> None:
    moment = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Vienna"))
    back = decode(encode(moment))
    assert (back, back.tzinfo, back.fold) == (moment, moment.tzinfo, 1)
    unknown = encode(moment).replace("Europe/Vienna", "Atlantis/Capital")
    assert decode(unknown) == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "array",
    [
        numpy.zeros((2, 0, 3), "f4"),
        numpy.arange(6).reshape(2, 3).T,
        numpy.array(["a", "bc"]),
        numpy.array([1.5, math.nan]),
        numpy.array(7),
        numpy.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        numpy.array(["2024-01-01"], dtype="M8[D]"),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays(array: numpy.ndarray[Any, Any]) -> None:
    back = decode(encode({"image": array}))["image"]
    assert back.dtype == array.dtype
    numpy.testing.assert_array_equal(back, array)


@given(st_numpy.arrays(st_numpy.scalar_dtypes(), st_numpy.array_shapes(min_dims=0)))
def test_any_array(array: numpy.ndarray[Any, Any]) -> None:
    back = decode(encode(array))
    assert (back.dtype, back.tobytes()) == (array.dtype, array.tobytes())


_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
    | st.binary() | st.decimals(allow_nan=False) | st.dates() | st.datetimes() | st.uuids() | st.timedeltas()
)  # fmt: skip
_keys = st.text(st.characters(exclude_categories=()), max_size=5) | st.just("$type") | st.integers() | st.booleans()
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_keys, inner, max_size=4)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=12,
)


@given(_values)
def test_any_value_comes_back(value: Any) -> None:
    text = encode(value)
    assert "\x00" not in text
    text.encode("utf-8")
    back = decode(text)
    assert repr(back) == repr(value)
    assert encode(back) == text


@given(st.text(st.characters(exclude_categories=())), st.text(st.sampled_from("\x00\x1a0su8dcf\ud800\udfff")))
def test_any_text_can_be_escaped(text: str, tricky: str) -> None:
    for given_text in (text, tricky, text + tricky):
        escaped = escape_text(given_text)
        assert "\x00" not in escaped
        escaped.encode("utf-8")
        assert unescape_text(escaped) == given_text
    assert unescape_text("cut \x1a") == "cut \x1a"


def test_subclasses_of_containers_become_plain_containers() -> None:
    assert same(decode(encode(OrderedDict(b=1, a=2))), {"b": 1, "a": 2})
    assert same(decode(encode(Counter("aab"))), {"a": 2, "b": 1})
    assert same(decode(encode(defaultdict(list, a=[1]))), {"a": [1]})
    assert same(decode(encode(Pair(1, [2]))), (1, [2]))
    assert same(decode(encode(bytearray(b"a"))), b"a")


def test_equal_sets_give_equal_text() -> None:
    forwards, backwards = {0, 8}, {8, 0}
    assert list(forwards) != list(backwards)
    assert encode(forwards) == encode(backwards)


def test_a_key_is_blake2b_of_the_text() -> None:
    # b2sum --length 128
    assert content_key(encode({"a": 1})) == "2c6b113b8dd15ffbded9860b43eb0c6c"
    assert content_key(encode(1)) != content_key(encode(1.0))


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (object(), "(the whole value)", "builtins.object"),
        ({"meta": [1, 2, {"secret"}, open]}, "at ['meta'][3]", "builtins.builtin_function_or_method"),
        ({"a": {("secret",): lambda: 0}}, "at ['a'][<tuple>]", "builtins.function"),
        ([(1, {2: iter_nothing()})], "at [0][1][2]", "builtins.generator"),
        ({"a": {object(): 1}}, "at ['a']['a key']", "builtins.object"),
        ({"p": Point("secret", object())}, "at ['p']['y']", "builtins.object"),
        ({"c": Point}, "at ['c']", "builtins.type"),
        ({"r": range(3)}, "at ['r']", "builtins.range"),
        ({"e": ValueError("secret")}, "at ['e']", "builtins.ValueError"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_error_names_place_and_type_of_a_value_only(value: Any, place: str, kind: str) -> None:
    with pytest.raises(UnstorableValueError) as raised:
        encode(value)
    assert f"a value of type {kind} {place} cannot be stored" in raised.value.message
    assert "secret" not in str(raised.value)
    assert raised.value.remedy


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(UnstorableValueError, match=r"at \['a'\]\[0\]\[0\]\[0\]… is nested more than 80 levels deep"):
        encode_columns({"a": circle})


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: (value,), lambda value: {"$type": value}, Point])
def test_the_deepest_accepted_value_comes_back(wrap: Any) -> None:
    value: Any = 1
    depth = 0
    while depth < 200:
        try:
            text = encode(wrap(value))
        except UnstorableValueError:
            break
        value = wrap(value)
        depth += 1
        assert repr(decode(text)) == repr(value)
    assert 50 <= depth < 200


def test_unknown_types_leave_their_name() -> None:
    assert decode(
        '{"$type":"dataclass","name":"no.such.module:Thing","value":{"x":{"$type":"tuple","value":[1]}}}'
    ) == {
        "$type": "no.such.module:Thing",
        "x": (1,),
    }
    assert decode('{"$type":"enum","name":"no.such.module:Thing","value":1}') == {
        "$type": "no.such.module:Thing",
        "value": 1,
    }
    assert "no" not in sys.modules
    assert decode('{"$type":"from the future","value":1}') == {"$type": "from the future", "value": 1}


def test_nothing_is_imported_because_of_stored_data() -> None:
    assert "this" not in sys.modules
    decode('{"$type":"dataclass","name":"this:s","value":{}}')
    assert "this" not in sys.modules


def test_stored_data_runs_no_code() -> None:
    text = encode(Strict(3)).replace('"number":3', '"number":-3')
    back = decode(text)
    assert (type(back), back.number, back.doubled) == (Strict, -3, 6)
    assert decode('{"$type":"dataclass","name":"os:system","value":{"command":"true"}}') == {
        "$type": "os:system",
        "command": "true",
    }


def test_a_changed_type_gives_a_mapping() -> None:
    name = f"{__name__}:Point"
    assert decode(encode(Point(1)).replace('"y"', '"z"')) == {"$type": name, "x": 1, "z": None}
    assert decode(encode(Colour.RED).replace('"red"', '"mauve"')) == {"$type": f"{__name__}:Colour", "value": "mauve"}


def test_local_types_give_a_mapping() -> None:
    @dataclass
    class Local:
        x: int

    assert decode(encode(Local(1)))["x"] == 1
    assert "Local" in decode(encode(Local(1)))["$type"]


def test_text_that_is_not_json() -> None:
    with pytest.raises(ValueError, match=r"unexpected end of data|expected"):
        decode("{")
