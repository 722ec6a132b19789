"""inspect view beside the view of doteval, in headless Chromium: the time to the first row, and the server's memory.

Both show the same samples, of 1 KB with two scores: inspect view a log that inspect-ai has written, doteval a store on
SQLite. The server runs already; the time is that from the address of the list to a row that can be read. There are ten
times as many samples until inspect view shows none in time.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import PEERS, Bench, project
from benchmarks.commands import peak_of
from benchmarks.environments import python_of
from benchmarks.large_store import fill

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# inspect-ai had not written a log of 100,000 samples in eight minutes of processor time.
_SAMPLES = (1_000, 10_000)
_LOG = "inspect.eval"
# Every row has this text.
_TEXT = "lorem ipsum"
_START_SECONDS = 60
_SHOWN_WITHIN_SECONDS = 120
_LOOK_SECONDS = 0.02


def measure_peers(bench: Bench) -> None:
    """Add the figures of both views to the report, or say why there are none."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        print("inspect view is not measured: there is no chromium, or no chromedriver, on PATH", flush=True)
        return
    for samples in map(bench.rows, _SAMPLES):
        with project(PEERS / "reading_inspect.py") as directory, _chromium(directory / "browser") as browser:
            work = f"view, {samples:,} rows of 1 KB, in Chromium"
            url = f"sqlite:///{directory / 'results.db'}"
            fill(url, "base", samples, seed=0)
            python = python_of("doteval")
            command = [python, "-m", "doteval", "view", "--storage", url]
            page = "rows?experiment=base"
            if not _measure(bench, work, "doteval", command, directory, browser, page):
                raise TimeoutError(f"doteval has not shown a row within {_SHOWN_WITHIN_SECONDS} s")
            bench.peer("inspect-ai", directory, "reading_inspect.py", "write", str(samples))
            inspect = Path(python_of("inspect-ai")).with_name("inspect")
            command = [str(inspect), "view", "start", "--log-dir", str(directory), "--host", "127.0.0.1"]
            if not _measure(bench, work, "inspect view", command, directory, browser, f"#/logs/{_LOG}"):
                print(f"inspect view shows none of {samples:,} samples within {_SHOWN_WITHIN_SECONDS} s", flush=True)
                return


def _measure(
    bench: Bench, work: str, name: str, command: list[str], directory: Path, browser: Chrome, page: str
) -> bool:
    """Add the figures of one view. Returns whether it has shown a row, each time in time."""
    taken, memory = [], []
    for _ in range(bench.repeat):
        with _server(command, directory) as (address, pid):
            seconds = _seconds_to_first_row(browser, address + page)
            if seconds is None:
                return False
            taken.append(seconds)
            memory.append(peak_of(pid))
    bench.report.add(work, f"{name}: to the first row", "s", taken)
    bench.report.add(work, f"{name}: memory of the server", "MB", memory)
    return True


def _seconds_to_first_row(browser: Chrome, address: str) -> float | None:
    """The seconds until a row can be read, None if none can in time."""
    browser.get("about:blank")
    began = time.perf_counter()
    browser.get(address)
    while time.perf_counter() - began < _SHOWN_WITHIN_SECONDS:
        if _TEXT in str(browser.execute_script("return document.body.innerText")):
            return time.perf_counter() - began
        time.sleep(_LOOK_SECONDS)
    return None


@contextmanager
def _server(command: list[str], directory: Path) -> Iterator[tuple[str, int]]:
    """A server that answers, with its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (directory / "server.txt").open("ab") as output:
        process = subprocess.Popen([*command, "--port", str(port)], cwd=directory, stdout=output, stderr=output)
    try:
        deadline = time.perf_counter() + _START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.perf_counter() > deadline:
                raise TimeoutError(f"{' '.join(command)} does not listen on port {port}")
            time.sleep(_LOOK_SECONDS)
        yield f"http://127.0.0.1:{port}/", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def _chromium(profile: Path) -> Iterator[Chrome]:
    # A development dependency, as Chromium's driver is.
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    # Root, as in containers, cannot have Chromium's own sandbox. It sees pages of this machine only.
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1250,900"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    browser = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield browser
    finally:
        browser.quit()
