"""A report in a real browser: what it asks for, how wide it is, and whether it can be read, in light and in dark.

``DOTEVAL_SCREENSHOTS=1`` keeps the picture for the documentation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from doteval.core.provenance import GitState, Provenance
from doteval.report.page import html_page
from doteval.report.reading import read_report
from doteval.store import Store
from tests.browser.conftest import Appearance
from tests.browser.pictures import take_picture
from tests.support.comparisons import FAILED, add_experiment

pytestmark = pytest.mark.browser

# The contrast of each text with what is behind it, the least first, by WCAG 2.2 (relative luminance).
CONTRAST = """
function luminance(color) {
  const parts = color.match(/[\\d.]+/g).slice(0, 3).map(each => each / 255)
    .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
}
function behind(element) {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if (color !== "rgba(0, 0, 0, 0)") return color;
  }
  return "rgb(255, 255, 255)";
}
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || element.closest("style")) continue;
  const style = getComputedStyle(element);
  const color = element.closest("svg") ? style.fill : style.color;
  const pair = [luminance(color), luminance(behind(element))].sort((a, b) => b - a);
  found.push([(pair[0] + 0.05) / (pair[1] + 0.05), texts.currentNode.data.trim().slice(0, 40)]);
}
return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    metrics = {"exact_match": ["accuracy"], "judge": ["mean"]}
    with Store.open(str(directory / "results.db")) as store:
        for name, right in (("base", 310), ("new", 262)):
            values = {
                "exact_match": [FAILED if row > 390 else (row * 37) % 400 < right for row in range(400)],
                "judge": [1 + (row * 7919 + right) % 40 / 10 for row in range(400)],
            }
            model = f"gpt-{'large' if name == 'new' else 'small'}"
            evaluation = add_experiment(store, name, values, metrics=metrics, model=model, cost=0.002)
            command = ("doteval", "submit", "evals", "--experiment", name, "--storage", "x" * 300)
            store.provenance.add(evaluation.experiment, Provenance(command, GitState("4517fb9d" * 5, "main", False)))
        experiment = store.experiments.find("new")
        store.labels.change(experiment, add=["release"], note="The prompt of the paper, with the large model")
        contents = read_report(store, experiment, store.evaluations.of(experiment), against="base")
    path = directory / "report.html"
    path.write_text(html_page(contents), encoding="utf-8")
    return path


@pytest.fixture
def seen(browser: webdriver.Chrome, appearance: Appearance) -> Any:
    """Shows a page in a colour scheme and a width."""

    def show(path: Path, scheme: str, width: int, *, medium: str = "") -> None:
        appearance(scheme, width, medium=medium)
        browser.get(path.as_uri())

    return show


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_can_be_read(browser: webdriver.Chrome, page: Path, seen: Any, scheme: str, tmp_path: Path) -> None:
    for width in (375, 1250, 2560):
        seen(page, scheme, width)
        hidden = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(hidden) == 0
        # Nothing but tables and texts in boxes of their own is wider than the window.
        wide = """return [...document.querySelectorAll("main > *, h1, h2, h3, figure, svg")]
            .filter(each => each.getBoundingClientRect().right > innerWidth).length"""
        assert browser.execute_script(wide) == 0
        ((contrast, text), *_) = browser.execute_script(CONTRAST)
        assert contrast >= 4.5, text
    dark = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(23, 24, 27)") is (scheme == "dark")
    # The answers are on the first screen.
    seen(page, scheme, 1250)
    below = "return document.querySelector('.verdict-large').getBoundingClientRect().bottom"
    assert browser.execute_script(below) < 800
    if scheme == "light":
        assert take_picture(browser, "report.png", 720, tmp_path).stat().st_size > 5_000


def test_a_report_prints_dark_on_white(browser: webdriver.Chrome, page: Path, seen: Any) -> None:
    seen(page, "dark", 800, medium="print")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ((contrast, text), *_) = browser.execute_script(CONTRAST)
    assert contrast >= 4.5, text


def test_a_report_asks_nobody_for_anything(browser: webdriver.Chrome, page: Path, seen: Any) -> None:
    seen(page, "light", 1250)
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    # The policy of the page forbids even what somebody could smuggle in.
    loads = """const [done] = arguments; const image = new Image();
        document.addEventListener("securitypolicyviolation", each => done(each.blockedURI));
        image.src = "http://127.0.0.1:9/x.png";"""
    assert "127.0.0.1:9" in str(browser.execute_async_script(loads))


def test_a_report_has_no_errors_on_the_console(browser: webdriver.Chrome, page: Path, seen: Any) -> None:
    # What the browser says of the page comes as events of the log, which the driver keeps.
    # A page of an earlier test may ask a server that has ended.
    browser.get("about:blank")
    before = browser.get_log("browser")
    seen(page, "light", 1250)
    said = [json.dumps(each) for each in browser.get_log("browser") if each not in before]
    assert said == []
