"""Renders Markdown that a model has written, for readers who ask for it.

Two libraries stand between the text and the page. The parser writes HTML of the text as text, so that it makes only
elements of Markdown; the sanitizer lets through no others, whatever the parser does. Links lead to other sites only,
and never bring what shows where the reader comes from. Images are shown where they are data, and named otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from doteval.core.wording import clean
from doteval.view.images import is_image

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

# Characters of a text that are rendered: 20 to 150 ms of Python for 20,000.
MOST_CHARACTERS = 50_000

_TAGS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "em", "strong", "s", "del", "a", "img"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES: dict[str, set[str]] = {"a": {"href"}, "img": {"src", "alt"}, "ol": {"start"}, "p": {"class"}}
_LINKS = ("http://", "https://", "mailto:")
_HEADING = "heading"


def rendered(text: str) -> Markup:
    """A text with its Markdown rendered, safe to be part of a page.

    >>> str(rendered("**Yes** <script>alert(1)</script>"))
    '<p><strong>Yes</strong> &lt;script&gt;alert(1)&lt;/script&gt;</p>\\n'
    """
    # It takes 30 ms to import, which the start of the view does not wait for.
    import nh3

    return Markup(  # noqa: S704 - this is what the sanitizer is for
        nh3.clean(
            _parser().render(clean(text)),
            tags=_TAGS,
            attributes=_ATTRIBUTES,
            attribute_filter=_allowed,
            url_schemes={"http", "https", "mailto", "data"},
            link_rel="noopener noreferrer nofollow",
        )
    )


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    parser.add_render_rule("image", _image)
    # The page has headings of its own, in their order.
    for each in ("heading_open", "heading_close"):
        parser.add_render_rule(each, _heading)
    return parser


def _image(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    token = tokens[index]
    source = str(token.attrs.get("src", ""))
    if is_image(source):
        return str(Markup('<img src="{}" alt="{}">').format(source, token.content or "image"))
    return str(escape(f"[image: {token.content or source}]"))


def _heading(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    return f'<p class="{_HEADING}">' if tokens[index].nesting == 1 else "</p>\n"


def _allowed(tag: str, name: str, value: str) -> str | None:
    """An attribute that may stay, None for one that goes."""
    if name != "rel" and name not in _ATTRIBUTES.get(tag, ()):
        # The sanitizer itself allows a few on every element.
        return None
    if name == "href":
        return value if value.lower().startswith(_LINKS) else None
    if name == "src":
        return value if is_image(value) else None
    if name == "class":
        return value if (tag, value) == ("p", _HEADING) else None
    return value
