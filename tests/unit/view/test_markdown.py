"""The Markdown of responses: what may become an element, and what stays text, whatever a model writes."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from doteval.view.markdown import rendered
from doteval.view.parameters import link

PNG = "data:image/png;base64,iVBORw0KGgo="
ELEMENTS = {
    *("p", "br", "hr", "blockquote", "pre", "code", "em", "strong", "s", "a", "img"),
    *("ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"),
}
DATA = re.compile("data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*")
ATTRIBUTES = {"href", "rel", "src", "alt", "start", "class"}
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<style>*{display:none}</style><form action=label method=post><input name=judgement></form>",
    "[a](javascript:alert(1)) [b](JaVaScRiPt:alert(1)) [c](&#106;avascript:alert(1)) [d](java\tscript:alert(1))",
    "[a](data:text/html;base64,PHNjcmlwdD4=) [b](vbscript:x) [c](file:///etc/passwd) <javascript:alert(1)>",
    "[a](//evil.example.org) [b](experiment?name=x) [c](label?x) [d](#main) [e](/x) [f]( http:evil)",
    "![a](https://evil.example.org/x.png) ![b](//evil/x.png) ![c](x.png) ![d](data:image/svg+xml;base64,PHN2Zz4=)",
    '[x](https://a.example "onmouseover=alert(1)") ![y" onerror="alert(1)](x)',
    "```<script>\nalert(1)\n```\n\n    <b onclick=x>",
    "[x]: javascript:alert(1)\n\n[x] and ![x]",
    "# <b>\n\nx\n===\n\n* [ ] <input>\n\n| <i> | b |\n|--|--|\n| <u onclick=x> | `</code><script>` |",
    "\x00\u202e<a href='https://x' id=main name=help class=skip>x</a>\ud800",
    "> " * 500 + "x",
    "[" * 2_000 + "](" * 2_000,
    "*" * 5_000 + "a" + "_" * 5_000,
    "<" * 5_000 + "`" * 4_999,
]


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(rendered(text))
    return parser.found


def check(text: str) -> None:
    for tag, attributes in elements(text):
        assert tag in ELEMENTS
        assert set(attributes) <= ATTRIBUTES
        assert attributes.get("class") in (None, "heading")
        assert re.match("https?://|mailto:|$", attributes.get("href") or "", re.IGNORECASE)
        assert tag != "a" or attributes["rel"] == "noopener noreferrer nofollow"
        assert tag != "img" or DATA.fullmatch(attributes["src"] or "")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_hostile_becomes_nothing_that_acts(text: str) -> None:
    check(text)


@given(st.text(alphabet="[]()<>!`*_#|-=:\"'&;/\\ \n\tajsx1", max_size=200))
@example("![x](" + PNG + ")")
def test_no_text_becomes_anything_else(text: str) -> None:
    check(text)


def test_what_people_want_to_read_is_rendered() -> None:
    shown = rendered(
        f"# Why\n\n1. **a** ~~b~~ `c`\n\n| x |\n|---|\n| 1 |\n\n![dot]({PNG}) [d](https://d.example/?a=b&c)"
    )
    assert '<p class="heading">Why</p>' in shown
    assert "<li><strong>a</strong> <s>b</s> <code>c</code></li>" in shown
    assert "<td>1</td>" in shown
    assert f'<img src="{PNG}" alt="dot">' in shown
    assert '<a href="https://d.example/?a=b&amp;c" rel="noopener noreferrer nofollow">d</a>' in shown
    assert "[image: a cat]" in rendered("![a cat](https://evil.example.org/x.png)")


def test_it_is_rendered_only_when_asked_for(rows_view: TestClient) -> None:
    row = {"experiment": "odd", "index": 0}
    plain = rows_view.get(f"/{link('row', **row)}").text
    assert 'class="markdown"' not in plain
    assert "markdown=1" in plain
    asked = rows_view.get(f"/{link('row', **row, markdown='1')}").text
    assert 'class="markdown"' in asked
    assert "markdown=1" not in re.findall(r'href="(row[^"]*)">Show the response as', asked)[0]
    assert rows_view.get(f"/{link('row', **row, markdown='2')}").status_code == 400
