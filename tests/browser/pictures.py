"""Takes the pictures of pages that the documentation shows."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from selenium import webdriver

_IMAGES = Path(__file__).parents[2] / "docs" / "images"


def take_picture(browser: webdriver.Chrome, name: str, height: int, elsewhere: Path) -> Path:
    """Take a picture of the first `height` pixels of the page.

    It goes into the documentation with DOTEVAL_SCREENSHOTS, else into the directory `elsewhere`.
    """
    path = (_IMAGES if os.environ.get("DOTEVAL_SCREENSHOTS") else elsewhere) / name
    clip = {"x": 0, "y": 0, "width": 1230, "height": height, "scale": 0.7}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    path.write_bytes(base64.b64decode(taken["data"]))
    return path
