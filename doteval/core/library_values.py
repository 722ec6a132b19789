"""Tagged JSON forms of values of NumPy, pandas and Pillow, for `doteval.core.json_codec`.

A library is imported only for a value of its own: when one is encoded, it is imported already. Where it is not
installed, a stored value of pandas becomes that of NumPy, and an image its PNG bytes.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from doteval.core.wording import counted

TAG = "$type"

# Modes of images that PNG holds without loss.
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})

# Encodes a member of a value: the member, and its place in the value.
Encode = Callable[[Any, int], Any]
Decode = Callable[[Any], Any]


class NoFormError(Exception):
    """The value has no JSON form. The message says what it is, `remedy` what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def tag_library_value(value: Any, encode: Encode) -> dict[str, Any] | None:
    """The tagged form of a value of one of the libraries, None for other values. Raises NoFormError."""
    module = type(value).__module__
    if module == "builtins":
        return None
    if module == "numpy":
        return _tag_numpy(value, encode)
    if module.partition(".")[0] == "pandas":
        return _tag_pandas(value)
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(value, pillow.Image):
        return _tag_image(value)
    return None


def _tag_numpy(value: Any, encode: Encode) -> dict[str, Any]:
    import numpy

    if isinstance(value, numpy.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return {TAG: "numpy", "name": value.dtype.str, "value": encode(value.item(), 0)}
    if isinstance(value, numpy.ndarray) and value.dtype.kind == "O":
        members = [encode(member, place) for place, member in enumerate(value.ravel().tolist())]
        return {TAG: "object_array", "shape": list(value.shape), "value": members}
    plain = isinstance(value, numpy.ndarray | numpy.generic) and not isinstance(value, numpy.matrix)
    if not plain or value.dtype.hasobject:
        raise NoFormError(
            f"a numpy {type(value).__name__} of this dtype",
            "Make it a list (array.tolist()), or give it another dtype.",
        )
    written = io.BytesIO()
    numpy.lib.format.write_array(written, numpy.asanyarray(value), allow_pickle=False)
    kind = "ndarray" if isinstance(value, numpy.ndarray) else "npy"
    return {TAG: kind, "value": base64.b64encode(written.getvalue()).decode()}


def _tag_pandas(value: Any) -> dict[str, Any] | None:
    import numpy
    import pandas

    for name in ("NaT", "NA"):
        if value is getattr(pandas, name):
            return {TAG: "pandas", "name": name}
    if type(value) is pandas.Timestamp or type(value) is pandas.Timedelta:
        # The number since the epoch (UTC), whose unit may be a nanosecond, and which may be beyond the year 9999.
        count, (unit, _) = int(value.asm8.astype("int64")), numpy.datetime_data(value.asm8)
        tagged = {TAG: "pandas", "name": type(value).__name__, "value": [count, unit]}
        if type(value) is pandas.Timestamp and value.tzinfo is not None:
            zone = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
            tagged["zone"] = zone or value.utcoffset().total_seconds()
        return tagged
    return None


def _tag_image(value: Any) -> dict[str, Any]:
    if value.mode not in _PNG_MODES:
        raise NoFormError(f"a PIL image of mode {value.mode}", "Convert it first: image.convert('RGB').")
    frames = getattr(value, "n_frames", 1)
    if frames > 1:
        raise NoFormError(
            f"a PIL image of {counted(frames, 'frame')}", "Pass one frame, image.copy(), or a list of frames."
        )
    written = io.BytesIO()
    # EXIF data may say which side is up.
    exif = {"exif": value.info["exif"]} if "exif" in value.info else {}
    try:
        value.save(written, format="PNG", **exif)
    except (OSError, ValueError) as error:
        raise NoFormError(
            "a PIL image that Pillow cannot read", "Open it with PIL.Image.open and load() it."
        ) from error
    return {TAG: "image", "value": base64.b64encode(written.getvalue()).decode()}


def _restore_numpy(tagged: Mapping[str, Any], decode: Decode) -> Any:
    import numpy

    if tagged[TAG] == "numpy":
        return numpy.dtype(tagged["name"]).type(decode(tagged["value"]))
    array = numpy.lib.format.read_array(io.BytesIO(base64.b64decode(tagged["value"])), allow_pickle=False)
    return array if tagged[TAG] == "ndarray" else array[()]


def _restore_object_array(tagged: Mapping[str, Any], decode: Decode) -> Any:
    import numpy

    array = numpy.empty(len(tagged["value"]), dtype=object)
    # One by one: NumPy would take a list of lists for more dimensions.
    for place, member in enumerate(tagged["value"]):
        array[place] = decode(member)
    return array.reshape(tagged["shape"])


def _restore_pandas(tagged: Mapping[str, Any], decode: Decode) -> Any:  # noqa: ARG001
    import numpy

    try:
        import pandas
    except ImportError:
        pandas = None
    name = tagged["name"]
    if name in ("NaT", "NA"):
        return None if pandas is None else getattr(pandas, name)
    count, unit = tagged["value"]
    plain = numpy.timedelta64(count, unit) if name == "Timedelta" else numpy.datetime64(count, unit)
    if pandas is None:
        return plain
    value = getattr(pandas, name)(plain)
    zone = tagged.get("zone")
    if zone is None:
        return value
    return value.tz_localize("UTC").tz_convert(_zone(zone))


def _zone(zone: str | float) -> Any:
    if not isinstance(zone, str):
        return timezone(timedelta(seconds=zone))
    try:
        return ZoneInfo(zone)
    except ZoneInfoNotFoundError:
        # This machine lacks the time zone; the moment itself is exact either way.
        return timezone(timedelta(0))


def _restore_image(tagged: Mapping[str, Any], decode: Decode) -> Any:  # noqa: ARG001
    content = base64.b64decode(tagged["value"])
    try:
        from PIL import Image
    except ImportError:
        return content
    return Image.open(io.BytesIO(content))


RESTORE: Mapping[str, Callable[[Mapping[str, Any], Decode], Any]] = {
    "numpy": _restore_numpy,
    "ndarray": _restore_numpy,
    "npy": _restore_numpy,
    "object_array": _restore_object_array,
    "pandas": _restore_pandas,
    "image": _restore_image,
}
