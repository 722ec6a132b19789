"""A headless Chromium of this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.browser.waiting import shown

Appearance = Callable[..., None]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium and its driver, of Debian's packages chromium and chromium-driver."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        reason = "there is no chromium, or no chromedriver, on PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless",
        # Root, as in containers, cannot have Chromium's own sandbox. It sees pages of this machine only.
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "window-size=1250,640",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{flag}")
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    # The examination of a page takes a second, and a busy machine takes long.
    chrome.set_script_timeout(120)
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def appearance(browser: webdriver.Chrome) -> Iterator[Appearance]:
    """Sets the colour scheme and the width of the window, and the medium "print", for one test."""

    def set_to(scheme: str, width: int, *, medium: str = "") -> None:
        features: list[Any] = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": features})
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        # The page learns of it a moment later.
        applied = f"return innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"
        shown(lambda: browser.execute_script(applied), what=f"{scheme}, {width} pixels wide")

    yield set_to
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
