"""`doteval view` over two finished experiments of a million rows of 1 KB with two scores, on SQLite and PostgreSQL.

The store is filled by statements of the database (`benchmarks.large_store`), which is not measured. Times are those of
whole requests, by a client of this machine on a connection that stays open. The rate of a submission, of rows that do
nothing in the same store, is measured alone and with ten pages of it that stay open, in turn. They look as often as
the view tells them to, as its script does.
inspect view is measured beside it by `benchmarks.view_peers`. So is promptfoo view, if the variable PROMPTFOO
names its package.
"""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.bench import EVALUATIONS, Bench, project
from benchmarks.commands import peak_of
from benchmarks.environments import python_of
from benchmarks.large_store import fill
from benchmarks.servers import result_store
from benchmarks.view_peers import measure_peers

_PEOPLE = 20
_CLICKS = 15
_WATCHING = 10
# Until the experiment that is submitted is there.
_FIRST_LOOK_SECONDS = 1.0
_SUBMITTED = 60_000
_COMPUTED_WITHIN_SECONDS = 600


def _page(path: str, **parameters: str | int) -> str:
    return f"/{path}?{urlencode({'experiment': 'base', **parameters})}"


def _pages(rows: int) -> dict[str, tuple[str, float]]:
    """Pages with the seconds that each may take."""
    middle = rows // 2
    return {
        "experiments": ("/", 0.3),
        "experiment": ("/experiment?name=base", 0.3),
        "rows": (_page("rows"), 0.3),
        "rows, next page in the middle": (_page("rows", after=f"{middle}.0"), 0.3),
        "rows, page before it": (_page("rows", before=f"{middle}.0"), 0.3),
        "rows, wrong": (_page("rows", show="wrong"), 0.3),
        "rows, filter on a score": (_page("rows", where="score.judge < 0.2 and score.exact_match = 0"), 0.3),
        "rows, filter on a column": (_page("rows", where="row.category = 'category 7'"), 0.3),
        "rows, filter that nothing matches": (_page("rows", where="score.judge > 7"), 0.3),
        "rows, search that much matches": (_page("rows", search="LOREM"), 0.3),
        "rows, search that nothing matches": (_page("rows", search="not to be found"), 1.0),
        "rows, sorted, once it is": (_page("rows", sort="-score.judge"), 0.3),
        "row": (_page("row", index=middle), 0.3),
    }


def measure(bench: Bench) -> None:
    rows = bench.rows(1_000_000)
    for database in ("SQLite", "PostgreSQL"):
        with project(EVALUATIONS / "eval_noop.py") as directory, result_store(database, directory) as url:
            for seed, experiment in enumerate(("base", "new")):
                fill(url, experiment, rows, seed=seed)
            _measure(bench, f"view, {rows:,} rows of 1 KB, {database}", directory, url, rows)
    if bench.peers:
        measure_peers(bench)


def _measure(bench: Bench, work: str, directory: Path, url: str, rows: int) -> None:
    starts = []
    # The first start compiles modules.
    for _ in range(1 + bench.repeat):
        with _view(directory, url) as (port, began, _):
            _get(http.client.HTTPConnection("127.0.0.1", port), "/")
            starts.append(time.perf_counter() - began)
    first = bench.report.add(work, "start to first page", "s", starts[1:])
    bench.report.aim(work, "start to first page, s", first.median, bench.seconds(1.0), at_least=False)
    pages = _pages(rows)
    with _view(directory, url) as (port, _, pid):
        client = http.client.HTTPConnection("127.0.0.1", port)
        _wait_until_computed(client, _page("rows", sort="-score.judge"))
        _wait_until_computed(client, "/experiment?name=base")
        for name, (path, most) in pages.items():
            taken = [_get(client, path) for _ in range(max(5, bench.repeat))][1:]
            figure = bench.report.add(work, name, "s", taken)
            bench.report.aim(work, f"{name}, s", figure.median, bench.seconds(most), at_least=False)
        share = _people(port, [path for path, most in pages.values() if most < 1.0])
        bench.report.add(work, f"{_PEOPLE} people at once, 95% within", "s", [share])
        bench.report.aim(work, f"{_PEOPLE} people at once, 95% within, s", share, bench.seconds(1.0), at_least=False)
        charts = _wait_until_computed(http.client.HTTPConnection("127.0.0.1", port), _page("charts"))
        bench.report.add(work, "charts, until they are computed", "s", [charts])
        memory = peak_of(pid)
        bench.report.add(work, "memory", "MB", [memory])
        bench.report.aim(work, "memory, MB", memory, 200, at_least=False)
    _measure_watching(bench, work, directory, url)


def _measure_watching(bench: Bench, work: str, directory: Path, url: str) -> None:
    """The rate of a submission, alone and with pages that are open."""
    submitted = bench.rows(_SUBMITTED)

    def rate(name: str) -> float:
        began = time.perf_counter()
        arguments = ("submit", "eval_noop.py", "--experiment", name, "--samples", str(submitted), "--workers", "2")
        bench.doteval(directory, *arguments, DOTEVAL_STORAGE=url, ROWS=str(submitted))
        return submitted / (time.perf_counter() - began)

    def alone() -> float:
        return rate(f"alone-{time.time_ns()}")

    def watched() -> float:
        name = f"watched-{time.time_ns()}"
        with _view(directory, url) as (port, _, _):
            # Its start, and what it computes of finished experiments once, are not what a page that stays open costs.
            _wait_until_computed(http.client.HTTPConnection("127.0.0.1", port), "/experiment?name=base")
            with _watching(port, name):
                return rate(name)

    found = bench.compare(work, "rows/s", {"submission, alone": alone, "submission, ten pages watch": watched})
    share = found["submission, ten pages watch"].median / found["submission, alone"].median
    bench.report.aim(work, "submission, × alone with ten pages that watch", share, 0.97)


@contextmanager
def _view(directory: Path, url: str) -> Iterator[tuple[int, float, int]]:
    """A view, with its port, when it was started, and its process."""
    command = [python_of("doteval"), "-m", "doteval", "view", "--storage", url, "--port", "0"]
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"http://[^/]*:(\d+)/", line)
            assert found is not None, line
            yield int(found[1]), began, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def _get(client: http.client.HTTPConnection, path: str) -> float:
    """The seconds that a request takes."""
    began = time.perf_counter()
    client.request("GET", path)
    answer = client.getresponse()
    answer.read()
    assert answer.status == 200, (path, answer.status)
    return time.perf_counter() - began


def _wait_until_computed(client: http.client.HTTPConnection, path: str) -> float:
    """The seconds until a page has what is computed for it."""
    began = time.perf_counter()
    while time.perf_counter() - began < _COMPUTED_WITHIN_SECONDS:
        client.request("GET", path)
        if b'class="computing"' not in client.getresponse().read():
            return time.perf_counter() - began
        time.sleep(0.1)
    raise TimeoutError(f"{path} was still being computed")


def _people(port: int, paths: Sequence[str]) -> float:
    """The seconds within which 95% of the requests of many people are answered."""

    def one(number: int) -> list[float]:
        client = http.client.HTTPConnection("127.0.0.1", port)
        return [_get(client, paths[(number + click) % len(paths)]) for click in range(_CLICKS)]

    with ThreadPoolExecutor(_PEOPLE) as pool:
        taken = sorted(each for found in pool.map(one, range(_PEOPLE)) for each in found)
    return taken[int(0.95 * len(taken))]


@contextmanager
def _watching(port: int, experiment: str) -> Iterator[None]:
    """Keep pages open, most of them of an experiment that is about to be run."""
    ended = threading.Event()

    def keep_open(path: str) -> None:
        wait = 0.0
        headers = {"Doteval-Look": "1"}
        while not ended.wait(wait):
            # The server closes a connection that is not used for some seconds, as between two looks of a browser.
            client = http.client.HTTPConnection("127.0.0.1", port)
            client.request("GET", path, headers=headers)
            answer = client.getresponse()
            answer.read()
            client.close()
            assert answer.status in (200, 304, 404), (path, answer.status)
            wait = _FIRST_LOOK_SECONDS
            if answer.status != 404:
                wait = float(answer.headers["Doteval-Look-Again"])
                headers["If-None-Match"] = answer.headers["ETag"]

    paths = [
        "/",
        f"/experiment?name={experiment}",
        f"/rows?experiment={experiment}",
        f"/rows?experiment={experiment}&show=wrong",
        _page("row", index=7),
    ]
    with ThreadPoolExecutor(_WATCHING) as pool:
        opened = [pool.submit(keep_open, paths[number % len(paths)]) for number in range(_WATCHING)]
        try:
            yield
        finally:
            ended.set()
    for each in opened:
        each.result()
