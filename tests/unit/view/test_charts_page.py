"""The charts of an evaluation: images that are documents of their own, and the same values as tables."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from doteval.view.drawing import draw
from doteval.view.figures import FigureSeries, ShownFigure
from tests.support.odd_rows import HOSTILE_TEXTS
from tests.support.project import wait_until

_SVG = "{http://www.w3.org/2000/svg}"


def charts(view: TestClient, experiment: str) -> str:
    def read() -> str | None:
        page = view.get(f"/charts?{urlencode({'experiment': experiment})}").text
        return None if 'class="computing"' in page else page

    found = wait_until(read)
    assert isinstance(found, str)
    return found


def test_each_chart_has_an_image_a_text_and_a_table(view: TestClient) -> None:
    page = charts(view, "new")
    images = re.findall(r'<img class="chart" [^>]*src="([^"]*)" alt="([^"]*)"', page)
    assert [alt.split(":")[0] for _, alt in images] == [
        "exact_match",
        "Time of a row",
        "Tokens of a row",
        "Cost by model",
        "Rows over time",
        "History of exact_match.accuracy",
    ]
    assert page.count("<table") == len(images)
    # 20 of the 38 rows that did not fail are right.
    assert re.search(r'>true</bdi></th><td class="number">20</td>', page)
    for source, _ in images:
        answer = view.get(f"/{html.unescape(source)}")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert ElementTree.fromstring(answer.content).tag == f"{_SVG}svg"


def test_an_evaluation_without_results_says_what_comes_next(view: TestClient) -> None:
    assert view.get("/charts?experiment=empty").status_code == 404
    assert view.get("/chart?experiment=new&number=99").status_code == 404
    assert view.get("/chart?experiment=new&number=x").status_code == 400


@pytest.mark.parametrize("number", [1, 4, 5, 40])
def test_an_axis_has_room_for_its_labels_also_where_they_are_alike(number: int) -> None:
    labels = tuple(f"0.0{place // 5} s" for place in range(number))
    counts = FigureSeries("rows", tuple(map(float, range(number))), ("0",) * number)
    root = ElementTree.fromstring(draw(ShownFigure("Times", "all", "from", labels, (counts,))))
    shown = [element.text for element in root.iter(f"{_SVG}text") if element.text in labels]
    assert len(shown) == min(4, number)
    assert (shown[0], shown[-1]) == (labels[0], labels[-1])


@pytest.mark.parametrize("text", [text for kind, text in HOSTILE_TEXTS.items() if kind != "line"])
def test_an_image_holds_no_scripts_whatever_its_labels_are(text: str) -> None:
    series = FigureSeries(text, (1.0, None), ("1", "-"), ((0.5, 1.5), None))
    for chart in (
        ShownFigure(text, text, text, (text, "b"), (series,)),
        ShownFigure(text, text, text, (text, "b"), (FigureSeries(text, (1.0, 2.0), ("1", "2")),) * 2, is_stacked=True),
    ):
        root = ElementTree.fromstring(draw(chart))
        for element in root.iter():
            assert element.tag.removeprefix(_SVG) not in ("script", "foreignObject", "image", "a", "iframe")
            assert not [name for name in element.attrib if name.startswith("on") or "href" in name]
            assert "http" not in (element.text or "").replace("http://www.w3.org", "")
