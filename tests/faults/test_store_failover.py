"""PostgreSQL fails over to its standby, and evaluations go on there: every result is kept, and no row runs twice."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_store_outage import evaluating
from tests.support.fault_evaluation import ROWS, let_go
from tests.support.fault_services import RedisServer
from tests.support.postgres_pair import PostgresPair
from tests.support.project import Project, wait_until


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        # The servers run as another user than root.
        Path(directory).chmod(0o755)
        with PostgresPair(Path(directory)) as pair:
            yield pair


@pytest.mark.parametrize(
    ("how", "url", "until"),
    [("demote", "address", 30), ("kill", "addresses", 50), ("silence", "addresses", 70)],
)
def test_postgresql_fails_over(
    project: Project, broker: RedisServer, pair: PostgresPair, how: str, url: str, until: int
) -> None:
    project.environment["DOTEVAL_STORAGE"] = getattr(pair, url)
    # The last rows are held, so that results are left to come however long the failover takes.
    with evaluating(project, until=until, held=ROWS - 40):
        getattr(pair, how)()
        began = time.monotonic()
        before = project.done()
        let_go(project)
        wait_until(lambda: project.done() >= before + 20, what="results on the new primary")
        print(f"{how} by {url}: results again after {time.monotonic() - began:.1f} s")

    said = [json.loads(line) for line in project.output().splitlines() if line.startswith("{")]
    warned = [line for line in said if line["level"] != "info"]
    by_process = Counter(line.get("process", "?") for line in warned)
    assert set(by_process.values()) <= {1}, json.dumps(warned, indent=1)
