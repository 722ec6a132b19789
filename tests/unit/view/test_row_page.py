"""The page of a row: all that is known of it, whatever a model or a dataset has written."""

from __future__ import annotations

import base64
import html
import io
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import pytest
from PIL import Image
from starlette.testclient import TestClient

from doteval.view.row_texts import ShownTexts
from tests.support.odd_rows import HOSTILE_TEXTS, KINDS, PIXEL, SVG

# What the pages are made of. Nothing else may come from a row.
_KNOWN = """
html head meta title link script body a header nav button kbd main p bdi h1 h2 h3 div span time code table caption
thead tbody tr th td b i u section pre details summary ul li footer dialog dl dt dd form img article del ins svg
label input fieldset legend progress
"""
KNOWN_TAGS = frozenset(_KNOWN.split())
LINKS = ("href", "src", "action", "formaction", "data", "xlink:href", "poster", "background")
OWN_LINK = re.compile(r"(?:static/[\w.]+|\.|rows?|charts?|experiment|compare|usage)?(?:[?#].*)?")


class Parsed(HTMLParser):
    """The elements of a page, as a browser would read them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def row(rows_view: TestClient, kind: str, **parameters: Any) -> str:
    given = {"experiment": "odd", "index": KINDS.index(kind), **parameters}
    answer = rows_view.get(f"/row?{urlencode(given)}")
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["row", "whole", "rows"])
def test_nothing_that_a_row_holds_becomes_an_element_or_a_link(rows_view: TestClient, kind: str, path: str) -> None:
    if path == "rows":
        page = rows_view.get(f"/rows?experiment=odd&from={KINDS.index(kind)}&column=prompt&column=row.value").text
    else:
        page = row(rows_view, kind, **({"texts": "whole"} if path == "whole" else {}))
    for tag, attributes in Parsed(page).elements:
        assert tag in KNOWN_TAGS
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc", "autofocus")]
        for name in LINKS:
            target = attributes.get(name) or ""
            if target.startswith("data:"):
                assert (tag, target) == ("img", PIXEL)
            else:
                assert OWN_LINK.fullmatch(target), target
    assert page.count("<script") == 1
    assert len(page) < 4_000_000


@pytest.mark.parametrize("kind", ["script", "handler", "link", "attribute", "template"])
def test_hostile_texts_are_shown_as_they_are(rows_view: TestClient, kind: str) -> None:
    assert HOSTILE_TEXTS[kind] in Parsed(row(rows_view, kind)).text


@pytest.mark.parametrize("kind", ["bidi", "nul", "marks"])
def test_characters_that_a_layout_would_follow_are_not_sent(rows_view: TestClient, kind: str) -> None:
    page = row(rows_view, kind)
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_long_texts_are_cut_and_say_so(rows_view: TestClient) -> None:
    page = row(rows_view, "line")
    assert len(page) < 300_000
    assert "980,000 characters more" in page
    assert len(row(rows_view, "line", texts="whole")) > 1_000_000


def test_images_are_data_of_known_types(rows_view: TestClient) -> None:
    page = row(rows_view, "image")
    images = [attributes for tag, attributes in Parsed(page).elements if tag == "img"]
    assert [each["src"] for each in images] == [PIXEL, PIXEL]
    assert all(each["alt"] for each in images)
    assert SVG in page


def test_an_image_of_pillow_is_shown_and_one_that_is_too_large_by_its_size() -> None:
    texts = ShownTexts()
    shown = texts.value("picture", Image.new("RGB", (3, 2), "green"))
    (address,) = shown.images
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as found:
        assert (found.size, found.getpixel((0, 0))) == ((3, 2), (0, 128, 0))
    large = texts.value("picture", Image.new("1", (3_000, 2_000)))
    assert large.images == []
    assert large.text is not None
    assert large.text.text == "[image, 3000 × 2000 pixels, 1]"
    written = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(written, "PNG")
    broken = Image.open(io.BytesIO(written.getvalue()[: len(written.getvalue()) // 2]))
    assert texts.value("picture", broken).images == []


def test_only_texts_that_are_cut_offer_more_of_them(rows_view: TestClient) -> None:
    assert "Show up to a million characters" not in row(rows_view, "chat")
    assert "Show up to a million characters" in row(rows_view, "line")


def test_a_failed_row_shows_the_authors_frames_first_and_how_to_run_it_again(rows_view: TestClient) -> None:
    page = row(rows_view, "error")
    text = Parsed(page).text
    assert text.index("/home/ann/evals/eval_x.py") < text.index("site-packages")
    assert "doteval retry odd --evaluation o.py::eval_o --row 11" in text
    assert "doteval show odd --evaluation o.py::eval_o --row 11 --json" in text


def test_a_row_shows_its_conversation_its_difference_its_reasons_and_its_calls(rows_view: TestClient) -> None:
    page = row(rows_view, "chat")
    text = Parsed(page).text
    assert "It says three." in text
    assert re.findall(r"<(del|ins)>(.*?)</", page) == [("ins", "2"), ("del", "3")]
    assert re.findall(r'<p class="role">(\w+)</p>', page)[:2] == ["system", "user"]
    assert "<i>two</i>" in text
    assert "<u>away</u>" in text
    assert "20 + 5 tokens" in text
    # The second call asks what the first one did, which is not said again.
    assert "after the 2 messages of the call before" in text
    assert '"explanation": "It says three."' in text


def test_a_row_without_a_result_and_one_that_does_not_exist(rows_view: TestClient) -> None:
    assert "This row has no result yet" in row(rows_view, "pending")
    answer = rows_view.get(f"/row?experiment=odd&index={len(KINDS)}")
    assert answer.status_code == 404
    assert f"0 to {len(KINDS) - 1}" in answer.text
    assert rows_view.get("/row?experiment=odd&index=x").status_code == 400
    assert rows_view.get("/row?experiment=odd&index=1&where=x").status_code == 400
    assert "has no result" in row(rows_view, "chat", sample=3)


@pytest.mark.parametrize(
    ("parameters", "index", "before", "behind"),
    [
        ({}, 5, 4, 6),
        ({}, 0, None, 1),
        ({"show": "wrong"}, 30, None, 31),
        ({"show": "wrong"}, 37, 36, None),
        ({"where": "index in (3, 9, 20)"}, 9, 3, 20),
        ({"sort": "-index"}, 7, 8, 6),
        ({"show": "wrong", "sort": "-index"}, 37, None, 36),
    ],
)
def test_the_rows_before_and_behind_are_those_of_the_list(
    rows_view: TestClient, parameters: dict[str, str], index: int, before: int | None, behind: int | None
) -> None:
    page = rows_view.get(f"/row?{urlencode({'experiment': 'base', 'index': index, **parameters})}").text
    for relation, expected in (("prev", before), ("next", behind)):
        found = re.search(rf'<a rel="{relation}" href="([^"]*)"', page)
        if expected is None:
            assert found is None
            continue
        assert found is not None
        target = html.unescape(found[1])
        assert f"index={expected}" in target
        assert all(name in target for name in parameters)
