"""The web view in a real browser, on a real server: every page, its keys, its live parts, and hostile names.

``DOTEVAL_SCREENSHOTS=1`` keeps the picture for the documentation.
"""

from __future__ import annotations

import contextlib
import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from doteval.core.results import Row
from doteval.store import NewResult, Store
from doteval.view.parameters import link
from tests.browser.conftest import Appearance
from tests.browser.pictures import take_picture
from tests.browser.waiting import click, heading, leaving, shown
from tests.support.odd_rows import KINDS, add_odd_rows
from tests.support.project import wait_until
from tests.support.store_workload import done
from tests.support.view_stores import HOSTILE, fill_for_view

pytestmark = pytest.mark.browser

SHOWN_KINDS = ("chat", "error", "image", "script", "handler", "attribute", "line", "marks", "keys")
AXE = Path(sys.prefix) / "plugins" / "axe_playwright_python" / "axe.min.js"
EVALUATION = "evals/eval_qa.py::eval_qa"
PAGES = {
    "experiments": ".",
    "nothing found": link(".", search="nothing like this"),
    "experiment": link("experiment", name="base"),
    "a running experiment": link("experiment", name="running"),
    "an empty experiment": link("experiment", name="empty"),
    "a hostile experiment": link("experiment", name=HOSTILE),
    "a fixture": link("fixture", experiment="base", fixture="model"),
    "comparison": link("compare", a="base", b="new"),
    "no comparison": "compare",
    "rows": link("rows", experiment="base"),
    "rows of all kinds": link("rows", experiment="odd", column=["prompt", "row.value", "error"]),
    "a filter that cannot be read": link("rows", experiment="base", where="tokenz > 1"),
    "charts": link("charts", experiment="new"),
    **{f"a row: {kind}": link("row", experiment="odd", index=KINDS.index(kind)) for kind in SHOWN_KINDS},
    "a response as Markdown": link("row", experiment="odd", index=KINDS.index("link"), markdown="1"),
    "an error": link("experiment", name="nothing"),
}
# What the console says of a page whose status is that of an error.
STATUSES = {"an error": "404", "a filter that cannot be read": "400"}
TOKEN = "a-token-for-this-test"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "results.db"
    with Store.open(str(path)) as store:
        fill_for_view(store)
        add_odd_rows(store)
    return path


def served(path: Path, *options: str) -> Iterator[str]:
    """The address of a view, which ends in order at SIGTERM."""
    command = [sys.executable, "-m", "doteval", "view", "--storage", str(path), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"View on (http://\S+) for ", line)
            assert found is not None, line + process.stderr.read()
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0


@pytest.fixture(scope="module")
def address(stored: Path) -> Iterator[str]:
    yield from served(stored, "--allow-labels")


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> Any:
    """Opens a page, and waits until what it computes is there."""

    def open_page(path: str) -> None:
        browser.get(address + path)
        wait_until(lambda: not browser.find_elements(By.CLASS_NAME, "computing"), what=f"all of {path}")

    return open_page


def focused(browser: webdriver.Chrome) -> str:
    return str(browser.execute_script("return document.activeElement.textContent"))


def texts(browser: webdriver.Chrome, selector: str) -> list[str]:
    """The texts of elements, read at once: between two commands a live list may be read again."""
    script = "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent.trim())"
    found: list[str] = browser.execute_script(script, selector)
    return found


def press(browser: webdriver.Chrome, *keys: str) -> None:
    """Press keys, wherever the focus is: a live list may be read again at any moment."""
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


@pytest.mark.parametrize("name", PAGES)
def test_everybody_can_use_a_page(browser: webdriver.Chrome, page: Any, appearance: Appearance, name: str) -> None:
    backgrounds = set()
    for scheme, width in (("light", 1250), ("dark", 375)):
        appearance(scheme, width)
        page(PAGES[name])
        browser.execute_script(AXE.read_text(encoding="utf-8"))
        found = browser.execute_async_script("axe.run(document).then(arguments[0], error => arguments[0](`${error}`))")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
        assert "color-contrast" in [each["id"] for each in found["passes"]]
        for other in (width, 2560, 375):
            appearance(scheme, other)
            # Only tables and texts in regions of their own are wider than the window.
            hidden = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert browser.execute_script(hidden) == 0, (scheme, other)
        backgrounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_only_its_own_server_and_obeys_no_name(
    browser: webdriver.Chrome, page: Any, address: str, name: str
) -> None:
    # A page of an earlier test may ask a server that has ended.
    browser.get("about:blank")
    before = browser.get_log("browser")
    page(PAGES[name])
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert [each for each in asked if not each.startswith(address)] == []
    assert browser.title not in ("owned", "obeyed")
    assert browser.find_elements(By.CSS_SELECTOR, "main script, main img:not(.chart):not(.given)") == []
    said = [each["message"] for each in browser.get_log("browser") if each not in before]
    assert [each for each in said if name not in STATUSES or STATUSES[name] not in each] == []


def test_keys_move_open_and_search(browser: webdriver.Chrome, page: Any) -> None:
    page(link(".", sort="name"))
    press(browser, "j")
    first = focused(browser)
    press(browser, "j", "j", "k", "k")
    assert focused(browser) == first
    press(browser, "k")
    assert focused(browser) == first
    press(browser, "/")
    assert browser.switch_to.active_element.get_attribute("name") == "search"
    # In a field, keys are letters.
    press(browser, "jk?")
    assert browser.switch_to.active_element.get_attribute("value") == "jk?"
    press(browser, Keys.ESCAPE)
    press(browser, "?")
    assert browser.find_element(By.ID, "help").is_displayed()
    press(browser, "?")
    assert not browser.find_element(By.ID, "help").is_displayed()
    # At once: between two commands the list may be read again, and its links be others.
    browser.execute_script(
        "[...document.querySelectorAll('a.open')].find(each => each.textContent.trim() === 'base').focus()"
    )
    with leaving(browser):
        press(browser, Keys.ENTER)
    assert "name=base" in browser.current_url
    with leaving(browser):
        press(browser, "u")
    assert "experiment?" not in browser.current_url
    with leaving(browser):
        browser.back()
    assert "name=base" in browser.current_url


def test_a_search_is_part_of_the_url(browser: webdriver.Chrome, page: Any) -> None:
    page(".")
    with leaving(browser):
        browser.find_element(By.NAME, "search").send_keys("prompt of the paper" + Keys.ENTER)
    assert "search=prompt" in browser.current_url
    assert texts(browser, "a.open") == ["new"]
    with leaving(browser):
        click(browser, By.LINK_TEXT, "failed")
    assert "search=prompt" in browser.current_url
    assert "sort=-failed" in browser.current_url


def test_chosen_experiments_are_compared(browser: webdriver.Chrome, page: Any) -> None:
    page(link(".", search="e", sort="name"))
    click(browser, By.CSS_SELECTOR, "input[value=new]")
    with leaving(browser):
        click(browser, By.XPATH, "//button[text()='Compare the chosen ones']")
    shown(lambda: browser.find_elements(By.CLASS_NAME, "verdict"), what="a verdict")
    assert heading(browser) == "base and new"
    assert set(texts(browser, "del")) == {"base"}


def test_a_picture_of_a_comparison_for_the_docs(
    browser: webdriver.Chrome, page: Any, appearance: Appearance, tmp_path: Path
) -> None:
    appearance("light", 1250)
    page(link("compare", a="base", b="new"))
    assert take_picture(browser, "view.png", 800, tmp_path).stat().st_size > 5_000


def test_a_table_is_copied_for_a_spreadsheet(browser: webdriver.Chrome, page: Any, address: str) -> None:
    page(link("compare", a="base", b="new"))
    permissions = {"origin": address.rstrip("/"), "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", permissions)
    # The word stays: else it is there for a second and a half.
    browser.execute_script("window.setTimeout = () => 0")
    click(browser, By.CSS_SELECTOR, "#metrics + button.copy")
    shown(lambda: texts(browser, "#metrics + button.copy") == ["copied"], what="the word")
    read = "navigator.clipboard.readText().then(arguments[0], error => arguments[0](`${error}`))"
    head, first, *_ = browser.execute_async_script(read).splitlines()
    assert head.split("\t")[:4] == ["no.", "evaluation", "metric", "verdict"]
    assert first.split("\t")[:4] == ["1", "eval_qa", "exact_match accuracy", "worse"]


def test_a_running_experiment_is_followed_without_a_reload(browser: webdriver.Chrome, page: Any, stored: Path) -> None:
    page(link("experiment", name="running"))
    browser.execute_script("window.before = true")
    assert "3/10" in browser.find_element(By.ID, "state").text
    press(browser, "j")
    assert focused(browser) == "eval_qa"
    with Store.open(str(stored)) as store:
        evaluation = store.evaluations.of(store.experiments.find("running"))[0]
        row = Row(3, "key3", {})
        store.results.write([NewResult(evaluation.id, row, done())], None)
    wait_until(lambda: "4/10" in browser.find_element(By.ID, "state").text)
    assert browser.execute_script("return window.before")
    # What the reader was doing goes on.
    wait_until(lambda: "4/10" in browser.find_element(By.ID, "evaluations").text)
    assert focused(browser) == "eval_qa"


def test_times_are_in_the_zone_of_the_reader(browser: webdriver.Chrome, page: Any) -> None:
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Tokyo"})
    page(".")
    # Both at once: the list may be read again.
    time = "const time = document.querySelector('time'); return [time.dateTime, time.textContent]"
    moment, text = browser.execute_script(time)
    assert text == f"{datetime.fromisoformat(moment) + timedelta(hours=9):%Y-%m-%d %H:%M}"
    assert browser.find_element(By.CLASS_NAME, "foot").text.endswith("times are in Asia/Tokyo")
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": ""})


def test_without_scripts_everything_is_there(browser: webdriver.Chrome, address: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address + link("experiment", name="base"))
        assert browser.find_element(By.CSS_SELECTOR, "time").text.endswith(" UTC")
        assert "80/80" in browser.find_element(By.ID, "evaluations").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_page_prints_dark_on_white(browser: webdriver.Chrome, page: Any, appearance: Appearance) -> None:
    appearance("dark", 800, medium="print")
    page(link("experiment", name="base"))
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for hidden in (".bar", ".copy"):
        shown(lambda hidden=hidden: not browser.find_element(By.CSS_SELECTOR, hidden).is_displayed(), what=hidden)


def asked_for_the_token(browser: webdriver.Chrome) -> None:
    """The page says that the token is missing, after it has been asked for once more."""
    again = "return sessionStorage.length === 0 && document.readyState === 'complete'"
    shown(lambda: browser.execute_script(again) and "without its token" in heading(browser), what="a refusal")


def test_a_visitor_with_the_token_comes_back_by_a_link_of_another_site(browser: webdriver.Chrome, stored: Path) -> None:
    for printed in served(stored, "--token", TOKEN):
        # What is printed may end in a log.
        address, _, hidden = printed.partition("?token=")
        assert hidden == "***"
        url = f"{address}?token={TOKEN}"
        browser.get(address)
        asked_for_the_token(browser)
        browser.get(url)
        assert heading(browser) == "Experiments"
        assert TOKEN not in browser.current_url
        # For the browser, another name of this machine is another site, whose links bring no cookie.
        browser.get(address.replace("127.0.0.1", "localhost"))
        asked_for_the_token(browser)
        with leaving(browser):
            browser.execute_script(f"location.href = '{address}{link('experiment', name='base')}'")
        shown(lambda: heading(browser) == "base", what="the page, which is asked for again")


def test_rows_are_chosen_opened_and_walked_by_keys(browser: webdriver.Chrome, page: Any) -> None:
    page(link("rows", experiment="base", show="wrong"))
    first, second = texts(browser, "a.open")[:2]
    press(browser, "j")
    for key, there in ((Keys.ENTER, f"Row {first}"), ("]", f"Row {second}"), ("[", f"Row {first}")):
        with leaving(browser):
            press(browser, key)
        assert heading(browser) == there
    with leaving(browser):
        press(browser, "u")
    assert heading(browser) == "Rows of eval_qa"
    assert "show=wrong" in browser.current_url
    with leaving(browser):
        browser.find_element(By.NAME, "where").send_keys("index > 70" + Keys.ENTER)
    assert "where=" in browser.current_url
    rows = [int(text) for text in texts(browser, "a.open")]
    assert rows
    assert min(rows) > 70
    press(browser, "/")
    assert browser.switch_to.active_element.get_attribute("name") == "search"


def test_a_person_labels_a_row_by_keys(
    browser: webdriver.Chrome, page: Any, appearance: Appearance, tmp_path: Path
) -> None:
    page(link("row", experiment="base", index=3, where="index > 2"))
    name = browser.find_element(By.NAME, "person")
    name.clear()
    name.send_keys("Zoë" + Keys.ENTER)
    # Enter in the field sends nothing; nor does a letter of the note.
    press(browser, Keys.ESCAPE, "n")
    browser.switch_to.active_element.send_keys("wrong year" + Keys.ESCAPE)
    assert browser.find_elements(By.ID, "labels") == []
    with leaving(browser):
        press(browser, "w")
    assert "Zoë" in " ".join(texts(browser, "#labels tbody tr"))
    assert "where=index" in browser.current_url
    assert browser.find_element(By.NAME, "person").get_attribute("value") == "Zoë"
    with leaving(browser):
        press(browser, "r")
    assert texts(browser, "#labels tbody td.strong") == ["right"]
    assert "wrong year" in texts(browser, "#labels tbody tr")[0]
    appearance("light", 1250)
    assert [each.text for each in browser.find_elements(By.CSS_SELECTOR, "form button") if each.is_displayed()] == [
        "Right",
        "Wrong",
        "Remove mine",
    ]
    assert take_picture(browser, "view-row.png", 890, tmp_path).stat().st_size > 5_000
    page(link("rows", experiment="base", where="label = 'right'"))
    assert texts(browser, "a.open") == ["3"]


def test_charts_are_drawn(browser: webdriver.Chrome, page: Any) -> None:
    page(link("charts", experiment="new"))
    drawn = "return [...document.querySelectorAll('img.chart')].map(each => each.complete && each.naturalWidth)"
    shown(lambda: all(browser.execute_script(drawn)) and browser.execute_script(drawn), what="all charts")


@pytest.mark.parametrize("name", ["charts", "comparison"])
def test_charts_have_the_colours_of_the_page(
    browser: webdriver.Chrome, page: Any, appearance: Appearance, name: str
) -> None:
    colours = {"light": (0x2C, 0x5F, 0x8D), "dark": (0x82, 0xB4, 0xE6)}

    def taken() -> bytes | None:
        # Between two commands the page may be read again.
        with contextlib.suppress(StaleElementReferenceException):
            chart = browser.find_element(By.CSS_SELECTOR, "img.chart")
            # The picture of an element is of what the window shows of it.
            browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
            return chart.screenshot_as_png
        return None

    def drawn() -> set[Any]:
        picture = wait_until(taken)
        return {colour for _, colour in Image.open(io.BytesIO(picture)).convert("RGB").getcolors(1_000_000) or ()}

    page(PAGES[name])
    for scheme, other, width in (("light", "dark", 1250), ("dark", "light", 375)):
        # The page follows the system without being loaded again.
        appearance(scheme, width)
        shown(lambda scheme=scheme: colours[scheme] in drawn(), what=f"a chart for {scheme} pages")
        assert colours[other] not in drawn()
