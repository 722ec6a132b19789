"""Other views beside that of doteval, in headless Chromium: the time to the first row, and the server's memory.

inspect view shows a log of the same samples that inspect-ai has written, of 1 KB with two scores; doteval a store on
SQLite. promptfoo view shows as many rows of 1 KB that promptfoo has evaluated with its provider `echo`, and an
assertion each. The server runs already; the time is that from the address of the list to a row that can be read. There
are ten times as many samples until inspect view shows none in time.

promptfoo is optional, since it takes Node 22 or newer on PATH and 700 packages of npm: the variable PROMPTFOO names the
directory of the package, as in ``npm install promptfoo; PROMPTFOO=node_modules/promptfoo python -m benchmarks view``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
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
_PROMPTFOO_TEXT = "row 0 of promptfoo"
_PROMPTFOO_PROGRAM = Path("dist", "src", "entrypoint.js")
# It keeps its evaluations in its own directory, and asks nobody for news.
_PROMPTFOO_SETTINGS = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1"}
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
            if "PROMPTFOO" in os.environ:
                _measure_promptfoo(bench, work, Path(os.environ["PROMPTFOO"]).absolute(), directory, browser, samples)
            command = [str(inspect), "view", "start", "--log-dir", str(directory), "--host", "127.0.0.1"]
            if not _measure(bench, work, "inspect view", command, directory, browser, f"#/logs/{_LOG}"):
                print(f"inspect view shows none of {samples:,} samples within {_SHOWN_WITHIN_SECONDS} s", flush=True)
                return


def _measure_promptfoo(bench: Bench, work: str, package: Path, directory: Path, browser: Chrome, samples: int) -> None:
    """Evaluate rows with promptfoo, and add the figures of its view."""
    program = ["node", str(package / _PROMPTFOO_PROGRAM)]
    version = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
    settings = {**_PROMPTFOO_SETTINGS, "PROMPTFOO_CONFIG_DIR": str(directory / "promptfoo")}
    filling = "x" * 1_000
    tests = [
        {"vars": {"text": f"row {row} of promptfoo {filling}"}, "assert": [{"type": "contains", "value": "row"}]}
        for row in range(samples)
    ]
    config = directory / "promptfooconfig.json"
    config.write_text(json.dumps({"prompts": ["{{text}}"], "providers": ["echo"], "tests": tests}), encoding="utf-8")
    evaluated = subprocess.run(
        [*program, "eval", "-c", str(config), "--no-cache", "--no-table", "--no-progress-bar"],
        cwd=directory,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"\beval-[\w-]+T[\d:]+", evaluated.stdout + evaluated.stderr)
    if found is None:
        raise ValueError(f"promptfoo names no evaluation:\n{evaluated.stdout}{evaluated.stderr}")
    name, page, command = f"promptfoo {version} view", f"eval/{found[0]}", [*program, "view", "--no"]
    if not _measure(bench, work, name, command, directory, browser, page, text=_PROMPTFOO_TEXT, settings=settings):
        print(f"{name} shows none of {samples:,} rows within {_SHOWN_WITHIN_SECONDS} s", flush=True)


def _measure(
    bench: Bench,
    work: str,
    name: str,
    command: list[str],
    directory: Path,
    browser: Chrome,
    page: str,
    *,
    text: str = _TEXT,
    settings: Mapping[str, str] | None = None,
) -> bool:
    """Add the figures of one view. Returns whether it has shown a row, each time in time."""
    taken, memory = [], []
    for _ in range(bench.repeat):
        with _server(command, directory, settings or {}) as (address, pid):
            seconds = _seconds_to_first_row(browser, address + page, text)
            if seconds is None:
                return False
            taken.append(seconds)
            memory.append(peak_of(pid))
    bench.report.add(work, f"{name}: to the first row", "s", taken)
    bench.report.add(work, f"{name}: memory of the server", "MB", memory)
    return True


def _seconds_to_first_row(browser: Chrome, address: str, text: str) -> float | None:
    """The seconds until the text of a row can be read, None if it cannot in time."""
    browser.get("about:blank")
    began = time.perf_counter()
    browser.get(address)
    while time.perf_counter() - began < _SHOWN_WITHIN_SECONDS:
        if text in str(browser.execute_script("return document.body.innerText")):
            return time.perf_counter() - began
        time.sleep(_LOOK_SECONDS)
    return None


@contextmanager
def _server(command: list[str], directory: Path, settings: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """A server that answers, with its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (directory / "server.txt").open("ab") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=directory,
            env={**os.environ, **settings},
            stdout=output,
            stderr=output,
        )
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
