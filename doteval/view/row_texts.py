"""Values of rows as a page shows them: texts that are cut, conversations, and images that are data.

They come from models and datasets, and may hold anything. Templates escape them; here they are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from doteval.analysis.readable_values import chat_messages, readable
from doteval.view.images import as_image
from doteval.view.markdown import MOST_CHARACTERS, rendered

# Characters of one text, and of all texts of a page.
TEXT_CHARACTERS = 20_000
_ALL_CHARACTERS = 1_500_000
# Images of a page.
_IMAGES = 20
_DEEPEST = 90


@dataclass(frozen=True, slots=True)
class ShownText:
    """The beginning of a text, and how many characters are left out.

    html: the same with its Markdown rendered, if that was asked for.
    """

    text: str
    left_out: int = 0
    html: Markup | None = None


@dataclass(frozen=True, slots=True)
class ShownValue:
    """A value: its messages with their roles if it is a conversation, else its text; and the images in it."""

    name: str
    text: ShownText | None
    messages: Sequence[tuple[str, ShownText]] = ()
    images: Sequence[str] = ()


class ShownTexts:
    """Makes the texts of one page, which are bounded together.

    characters: of one text.
    """

    def __init__(self, characters: int = TEXT_CHARACTERS) -> None:
        self._characters = characters
        self._left = _ALL_CHARACTERS
        self._images = _IMAGES
        self.has_left_out = False

    def cut(self, text: str) -> ShownText:
        """The beginning of a text."""
        shown = text[: min(self._characters, self._left)]
        self._left -= len(shown)
        self.has_left_out |= len(shown) < len(text)
        return ShownText(shown, len(text) - len(shown))

    def rendered(self, text: str) -> ShownText:
        """The beginning of a text with its Markdown rendered."""
        shown = self.cut(text[:MOST_CHARACTERS])
        return ShownText(shown.text, len(text) - len(shown.text), rendered(shown.text))

    def value(self, name: str, value: Any, *, markdown: bool = False) -> ShownValue:
        """A value of a row, a prompt or a response."""
        cut = self.rendered if markdown else self.cut
        images: list[str] = []
        plain = self._without_images(value, images, 0)
        messages = chat_messages(plain)
        if messages is None:
            # What is no text is JSON.
            return ShownValue(name, (cut if isinstance(plain, str) else self.cut)(readable(plain)), images=images)
        return ShownValue(name, None, [(role, cut(text)) for role, text in messages], images)

    def _without_images(self, value: Any, images: list[str], depth: int) -> Any:
        """A value with a name in place of each image, which is added to `images`."""
        image = None if self._images == 0 else as_image(value)
        if image is not None:
            self._images -= 1
            images.append(image)
            return f"[image {len(images)}]"
        if depth < _DEEPEST and isinstance(value, list | tuple):
            return type(value)(self._without_images(each, images, depth + 1) for each in value) if value else value
        if depth < _DEEPEST and isinstance(value, Mapping):
            return {name: self._without_images(each, images, depth + 1) for name, each in value.items()}
        return value
