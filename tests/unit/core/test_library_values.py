"""Values of NumPy, pandas and Pillow are stored and given back as they were, or refused by name and place."""

from __future__ import annotations

import base64
import io
import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy
import pytest

from doteval.core.json_codec import decode, encode, encode_columns
from doteval.errors import UnstorableValueError


# Imported for the tests that need them, and not by every xdist worker at its start.
@pytest.fixture
def pandas() -> Any:
    return pytest.importorskip("pandas")


@pytest.fixture
def image_module() -> Any:
    return pytest.importorskip("PIL.Image")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: numpy.array([1, object()], dtype=object), r"a value of type builtins.object at \['a'\]\[1\]"),
        (lambda: numpy.array([(1, "x")], dtype=[("n", "i4"), ("o", "O")]), r"a numpy ndarray of this dtype at \['a'\]"),
        (lambda: numpy.array(["x"], dtype=numpy.dtypes.StringDType()), r"a numpy ndarray of this dtype at \['a'\]"),
        (lambda: numpy.ma.array([1, 2], mask=[0, 1]), r"a value of type numpy.ma.* at \['a'\]"),
    ],
)
def test_arrays_that_cannot_be_stored(make: Any, problem: str) -> None:
    with pytest.raises(UnstorableValueError, match=f"{problem} cannot be stored") as raised:
        encode_columns({"a": make()})
    assert raised.value.remedy


def test_values_of_pandas_and_pillow_that_cannot_be_stored(pandas: Any, image_module: Any) -> None:
    for value, problem in (
        (pandas.Interval(0, 1), "a value of type pandas.*Interval"),
        (image_module.new("CMYK", (1, 1)), "a PIL image of mode CMYK"),
        (image_module.new("F", (1, 1)), "a PIL image of mode F"),
    ):
        with pytest.raises(UnstorableValueError, match=rf"{problem} at \['a'\]\[1\] cannot be stored") as raised:
            encode_columns({"a": [0, value]})
        assert raised.value.remedy


def object_array(shape: tuple[int, ...], *members: Any) -> numpy.ndarray[Any, Any]:
    array = numpy.empty(len(members), dtype=object)
    for place, member in enumerate(members):
        array[place] = member
    return array.reshape(shape)


@pytest.mark.parametrize(
    "array",
    [
        object_array((2, 2), 1, "a", None, 0.5),
        object_array((2,), [1, 2], [3, 4]),
        object_array((2,), (1,), datetime(2024, 1, 1, tzinfo=UTC)),
        object_array((0, 3)),
        object_array((), 10**30),
    ],
    ids=lambda array: str(array.shape),
)
def test_arrays_of_objects(array: numpy.ndarray[Any, Any]) -> None:
    back = decode(encode({"a": array}))["a"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert repr(back.tolist()) == repr(array.tolist())


def test_an_array_of_arrays() -> None:
    array = object_array((2,), numpy.array([1.5]), numpy.array(["x", None], dtype=object))
    first, second = decode(encode(array))
    assert (first.dtype, first.tolist(), second.dtype, second.tolist()) == (float, [1.5], object, ["x", None])


@pytest.mark.parametrize(
    "make",
    [
        lambda pandas: pandas.Timestamp("2024-02-29 01:02:03.000000001"),
        lambda pandas: pandas.Timestamp("2024-10-27 02:30").tz_localize("Europe/Vienna", ambiguous=False),
        lambda pandas: pandas.Timestamp("2024-10-27 02:30").tz_localize("Europe/Vienna", ambiguous=True),
        lambda pandas: pandas.Timestamp("2024-01-01", tz=timezone(timedelta(hours=5, minutes=45))),
        lambda pandas: pandas.Timestamp("2024-01-01", tz="UTC"),
        lambda pandas: pandas.Timestamp(numpy.datetime64("12024-01-01", "s")),
        lambda pandas: pandas.Timedelta("1ns"),
        lambda pandas: pandas.Timedelta(days=-3),
    ],
)
def test_times_of_pandas(pandas: Any, make: Any) -> None:
    value = make(pandas)
    back = decode(encode([value]))[0]
    assert type(back) is type(value)
    assert (repr(back), back.unit) == (repr(value), value.unit)
    assert back == value


def test_missing_values_of_pandas(pandas: Any) -> None:
    assert decode(encode(pandas.NA)) is pandas.NA
    assert decode(encode(object_array((1,), pandas.NA)))[0] is pandas.NA
    assert decode(encode({"a": [pandas.NaT]}))["a"][0] is pandas.NaT


def test_values_of_pandas_without_pandas(pandas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = encode([pandas.Timestamp("2024-01-01", tz="Europe/Vienna"), pandas.Timedelta("1ns"), pandas.NA])
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert decode(stored) == [numpy.datetime64("2023-12-31T23:00"), numpy.timedelta64(1, "ns"), None]


def picture(image_module: Any, mode: str) -> Any:
    return image_module.frombytes("L", (7, 5), bytes(range(0, 245, 7))).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_images(image_module: Any, mode: str) -> None:
    image = picture(image_module, mode)
    text = encode({"image": image})
    assert base64.b64decode(json.loads(text)["image"]["value"]).startswith(b"\x89PNG")
    back = decode(text)["image"]
    assert (back.mode, back.size, back.tobytes()) == (image.mode, image.size, image.tobytes())
    assert back.getpalette() == image.getpalette()
    # The key of the row is the same when the dataset is read again.
    assert encode({"image": picture(image_module, mode)}) == text


def test_an_image_of_16_bits(image_module: Any) -> None:
    image = image_module.frombytes("I;16", (2, 1), b"\xff\xff\x01\x00")
    back = decode(encode(image))
    assert (back.mode, back.tobytes()) == ("I;16", b"\xff\xff\x01\x00")


def test_an_image_from_a_file_keeps_its_orientation(image_module: Any) -> None:
    file = io.BytesIO()
    exif = image_module.Exif()
    exif[0x112] = 6
    picture(image_module, "RGB").save(file, "JPEG", exif=exif)
    image = image_module.open(file)
    back = decode(encode(image))
    assert back.getexif()[0x112] == 6
    assert back.tobytes() == image.tobytes()


def test_an_animation_is_refused(image_module: Any) -> None:
    file = io.BytesIO()
    frames = [image_module.new("RGB", (3, 3), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(UnstorableValueError, match="a PIL image of 2 frames") as raised:
        encode(image_module.open(file))
    assert "image.copy()" in raised.value.remedy


def test_a_file_that_is_cut_is_no_image(image_module: Any) -> None:
    file = io.BytesIO()
    picture(image_module, "RGB").resize((200, 200)).save(file, "JPEG")
    cut = image_module.open(io.BytesIO(file.getvalue()[:800]))
    with pytest.raises(UnstorableValueError, match="a PIL image that Pillow cannot read"):
        encode(cut)


def test_an_image_without_pillow(image_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = encode(picture(image_module, "L"))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert decode(text).startswith(b"\x89PNG")
