"""The site of the documentation, made as ``make docs`` makes it, and looked at without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.browser.conftest import Appearance
from tests.browser.waiting import shown
from tests.support.project import wait_until

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fails with Sphinx's warnings, if there are any."""
    made = tmp_path_factory.mktemp("site")
    options = [
        "--fail-on-warning",
        "--keep-going",
        "--nitpicky",
        "--conf-dir",
        "docs",
        "--doctree-dir",
        f"{made}/trees",
    ]
    assert " ".join(options[:3]) in (ROOT / "Makefile").read_text()
    ran = subprocess.run(
        [sys.executable, "-m", "sphinx", "--quiet", *options, ".", made / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return made / "html"


def test_pages_ask_nothing_of_other_hosts(site: Path) -> None:
    styles = [path.read_text() for path in site.rglob("*.css")]
    pages = {path.relative_to(site): path.read_text() for path in site.rglob("*.html")}
    assert len(pages) > 20
    assert [text for text in styles if re.search(r"url\(['\"]?https?:|@import", text)] == []
    asked = r"<(?:script|img|iframe)[^>]+src=\"(?:https?:)?//[^>]*>|<link[^>]+href=\"(?:https?:)?//[^>]*>"
    assert {name: found for name, text in pages.items() if (found := re.findall(asked, text))} == {}


def test_each_page_is_served_as_markdown_too(site: Path) -> None:
    listed = re.findall(r"^- \[.+?]\((\S+\.md)\): .", (site / "llms.txt").read_text(), re.MULTILINE)
    assert len(listed) > 15
    for page in listed:
        assert (site / page).read_text() == (ROOT / page).read_text()
        assert f'href="{Path(page).name}"' in (site / page).with_suffix(".html").read_text()


def test_pages_fit_a_phone_and_a_screen(site: Path, browser: webdriver.Chrome, appearance: Appearance) -> None:
    # A page of an earlier test may ask a server that has ended.
    browser.get("about:blank")
    before = browser.get_log("browser")
    appearance("dark", 375)
    for page in sorted(site.rglob("docs/**/*.html")):
        browser.get(page.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 375, page.name
    appearance("light", 1400)
    browser.get((site / "index.html").as_uri())
    # The root leads to the index by a refresh, which begins when the page is loaded.
    wait_until(lambda: browser.current_url == (site / "docs" / "index.html").as_uri(), what="the index")
    # The page scrolls smoothly, so that a click would miss.
    link = (By.CSS_SELECTOR, "article a[href='reading-results.html']")
    listed = shown(lambda: browser.find_element(*link).get_attribute("href"), what="a link to a page")
    browser.get(listed)
    assert browser.title.startswith("Reading results")
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE" and each not in before] == []
