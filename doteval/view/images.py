"""Says which texts of rows are images that a page shows."""

from __future__ import annotations

import re

# Characters of one.
_MOST_CHARACTERS = 3_000_000
# SVG is not among them: it can hold scripts and links.
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}", re.ASCII)


def is_image(text: str) -> bool:
    """Whether a text is an image as data, of a type that can hold nothing but an image, and not too large a one.

    >>> is_image("data:image/png;base64,iVBORw0KGgo="), is_image("data:image/svg+xml;base64,iVBORw0KGgo=")
    (True, False)
    """
    return len(text) <= _MOST_CHARACTERS and _IMAGE.fullmatch(text) is not None
