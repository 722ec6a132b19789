"""Waits for what a browser shows: pages are loaded, left, and changed by their scripts while a test looks at them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By

from tests.support.project import wait_until


def shown(condition: Callable[[], Any], *, what: str = "the condition") -> Any:
    """Wait until a condition on a page is true; returns its value.

    An element that is not there yet, or that a script has replaced, is looked for again.
    """
    latest: WebDriverException | None = None

    def looked() -> Any:
        nonlocal latest
        try:
            return condition()
        except WebDriverException as error:
            latest = error
            return None

    try:
        return wait_until(looked, what=what)
    except AssertionError as error:
        raise error from latest


def click(browser: webdriver.Chrome, by: str, value: str) -> None:
    """Click on an element, as soon as it is there."""

    def clicked() -> bool:
        browser.find_element(by, value).click()
        return True

    shown(clicked, what=f"a click on {value}")


def heading(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "h1").text


@contextmanager
def leaving(browser: webdriver.Chrome) -> Iterator[None]:
    """The block leads to another page. Afterwards that page is loaded, and its scripts have run."""
    mark = secrets.token_hex(4)
    browser.execute_script("window.leaving = arguments[0]", mark)
    yield
    arrived = "return window.leaving !== arguments[0] && document.readyState === 'complete'"
    shown(lambda: browser.execute_script(arrived, mark), what=f"another page than {browser.current_url}")


def reloaded(browser: webdriver.Chrome, address: str, look: Callable[[], Any], *, what: str) -> Any:
    """Load a page until `look` finds on it what it looks for; returns that."""

    def found() -> Any:
        browser.get(address)
        # A script fetches what the page shows.
        for _ in range(20):
            value = look()
            if value:
                return value
            browser.execute_async_script("setTimeout(arguments[0], 100)")
        return None

    return shown(found, what=what)
