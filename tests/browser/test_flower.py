"""Flower as people see it: `doteval flower`, a real run, a real browser.

``DOTEVAL_SCREENSHOTS=1`` keeps the pictures for the documentation.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.acceptance.test_worker_service import ready
from tests.browser.waiting import click, leaving, reloaded, shown
from tests.support.ports import free_port
from tests.support.project import Project, wait_until

pytestmark = pytest.mark.browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
AUTH = "viewer:look-at-it"
SECRET = "sk-planted-77f2e8"
EVALUATION = """
import asyncio
from doteval import Result, foreach
from doteval.evaluators import exact_match
from doteval.core.metering import current_meter
from doteval.core.results import Usage

@foreach("question,answer", [(f"private question {i}", str(i % 2)) for i in range(500)])
async def eval_arithmetic(question, answer):
    await asyncio.sleep(0.02)
    current_meter().add(Usage("small-model", requests=1, attempts=1, prompt_tokens=390, completion_tokens=20))
    assert question not in ("private question 7", "private question 77")
    return Result(exact_match(answer, "0"), prompt=question)
"""


def keep(browser: webdriver.Chrome, tmp_path: Path, name: str) -> None:
    directory = IMAGES if os.environ.get("DOTEVAL_SCREENSHOTS") else tmp_path
    path = directory / f"{name}.png"
    browser.save_screenshot(str(path))
    assert path.stat().st_size > 5_000


def text_of(browser: webdriver.Chrome, words: str) -> str | None:
    """The text of the page, if it has the words."""
    found = browser.find_element(By.TAG_NAME, "body").text
    return found if words in found else None


def tasks(browser: webdriver.Chrome, address: str, state: str, *, count: int) -> list[str]:
    """The lines of the table of tasks, as soon as so many are in this state. Flower learns of them by events."""

    def lines() -> list[str]:
        script = "return [...document.querySelectorAll('#tasks-table tbody tr')].map(each => each.innerText)"
        found: list[str] = browser.execute_script(script)
        return found if sum(state in line for line in found) == count else []

    found: list[str] = reloaded(browser, f"{address}/tasks", lines, what=f"{count} tasks in {state}")
    return found


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def fail_a_task(project: Project) -> None:
    """Have a row task fail as a whole, which rows don't do: a row in the store is damaged."""
    more = ("eval_arithmetic.py", "--experiment", "damaged", "--samples", "10", "--rows-per-task", "10")
    project.run("submit", *more, "--queue", "later", "--detach")
    with sqlite3.connect(project.path / ".doteval" / "doteval.db") as store:
        damaged = store.execute(
            "UPDATE row SET content = 'private question, damaged'"
            " WHERE row_index = 3 AND evaluation_id = (SELECT max(id) FROM evaluation)"
        ).rowcount
    assert damaged == 1
    with project.started("worker", ".", "--processes", "1", "--queue", "later", "--name", "later"):
        wait_until(lambda: "row task could not be run" in project.output(), what="a row task that fails")


def test_flower_tells_the_story(project: Project, redis_url: str, browser: webdriver.Chrome) -> None:
    project.environment |= {"DOTEVAL_BROKER": redis_url, "DOTEVAL_FLOWER_AUTH": AUTH, "OPENAI_API_KEY": SECRET}
    project.write("eval_arithmetic.py", EVALUATION)
    port = free_port()
    state = project.path / "flower.db"
    with (
        project.started("flower", "--port", str(port), "--state", str(state)) as flower,
        project.started("worker", ".", "--processes", "2", "--concurrency", "10"),
    ):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), what="Flower")
        wait_until(lambda: ready(project, 2), what="two ready worker processes")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/workers")
        project.run("submit", "eval_arithmetic.py", "--experiment", "demo", "--rows-per-task", "100")

        base = f"http://{AUTH}@127.0.0.1:{port}"
        page = reloaded(browser, f"{base}/workers", lambda: text_of(browser, "worker-2@"), what="both processes")
        assert re.search(r"worker-1@\S+", page)
        keep(browser, project.path, "flower-workers")
        host = socket.gethostname()

        browser.get(f"{base}/worker/worker-1@{host}")
        click(browser, By.PARTIAL_LINK_TEXT, "Queues")
        assert "doteval" in shown(lambda: text_of(browser, "Exclusive"), what="queues").lower()

        rows = tasks(browser, base, "SUCCESS", count=5)
        assert len(rows) == 5
        assert all("eval_arithmetic" in row for row in rows)
        (first,) = (row for row in rows if "r0-99 demo" in row)
        assert "100 rows, 2 failed, 41 k tokens" in first
        assert "private question" not in browser.page_source
        keep(browser, project.path, "flower-tasks")

        with leaving(browser):
            click(browser, By.CSS_SELECTOR, "#tasks-table tbody tr a[href*='/task/']")
        assert "/task/" in browser.current_url
        page = shown(lambda: text_of(browser, "eval_arithmetic"), what="a task")
        assert "SUCCESS" in page
        assert re.search(r"r\d+-\d+ demo", page)
        assert "private question" not in browser.page_source
        keep(browser, project.path, "flower-task")

        fail_a_task(project)
        (failed,) = (line for line in tasks(browser, base, "FAILURE", count=1) if "FAILURE" in line)
        assert "r0-9 damaged" in failed
        with leaving(browser):
            click(browser, By.XPATH, "//tr[contains(., 'FAILURE')]//a[contains(@href, '/task/')]")
        page = shown(lambda: text_of(browser, "Traceback"), what="a task")
        # With the place where it happened; what the error says may be another program's.
        assert "RowTaskFailedError('JSONDecodeError')" in page
        assert "unexpected character" not in page
        assert "in run_rows" in page
        assert "private question" not in browser.page_source
        assert SECRET not in browser.page_source
        below = browser.find_element(By.XPATH, "//*[normalize-space(text())='Timestamp']")
        browser.execute_script("arguments[0].scrollIntoView({behavior: 'instant', block: 'end'})", below)
        keep(browser, project.path, "flower-failed-task")

        flower.send_signal(signal.SIGTERM)
        assert flower.wait(120) == 0
    # What it knew is still there after a restart.
    with project.started("flower", "--port", str(port), "--state", str(state)):
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), what="Flower")
        reloaded(browser, f"{base}/tasks", lambda: text_of(browser, "r400-499 demo"), what="tasks of before")
    assert AUTH.partition(":")[2] not in project.output()


def test_flower_lets_nobody_in_from_elsewhere_without_a_password(project: Project, redis_url: str) -> None:
    project.environment |= {"DOTEVAL_BROKER": redis_url, "DOTEVAL_FLOWER_AUTH": ""}
    refused: subprocess.CompletedProcess[str] = project.run("flower", "--address", "0.0.0.0", check=2)
    assert "DOTEVAL_FLOWER_AUTH" in refused.stderr
    project.environment["DOTEVAL_FLOWER_AUTH"] = "onlyname"
    assert "user:password" in project.run("flower", check=2).stderr
