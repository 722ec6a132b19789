"""Says which values of rows are images that a page shows."""

from __future__ import annotations

import base64
import io
import re
import sys
from typing import Any

# Characters of one.
_MOST_CHARACTERS = 3_000_000
# SVG is not among them: it can hold scripts and links.
# Pixels of an image of Pillow, which has to be written as PNG to be shown: a second of work.
_MOST_PIXELS = 4_000_000
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}", re.ASCII)


def is_image(text: str) -> bool:
    """Whether a text is an image as data, of a type that can hold nothing but an image, and not too large a one.

    >>> is_image("data:image/png;base64,iVBORw0KGgo="), is_image("data:image/svg+xml;base64,iVBORw0KGgo=")
    (True, False)
    """
    return len(text) <= _MOST_CHARACTERS and _IMAGE.fullmatch(text) is not None


def as_image(value: Any) -> str | None:
    """An image as data, None for a value that is none that a page shows: a text that `is_image`, or one of Pillow."""
    if isinstance(value, str):
        return value if is_image(value) else None
    pillow = sys.modules.get("PIL.Image")
    if pillow is None or not isinstance(value, pillow.Image) or value.width * value.height > _MOST_PIXELS:
        return None
    written = io.BytesIO()
    try:
        value.save(written, "PNG", compress_level=1)
    except (OSError, ValueError, SyntaxError):
        # Pillow raises SyntaxError, too, for what is no PNG. The value is then shown by its size.
        return None
    data = f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
    return data if is_image(data) else None
