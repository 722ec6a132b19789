"""`make soak MINUTES=10`: a large evaluation runs while things break at random; then every invariant is checked.

Seeded: the same seed breaks the same things at the same times. Prints the seed and the counts. Exit
code 1 if anything was lost, done twice or not done.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.support.commands import Commands
from tests.support.fault_evaluation import write_evaluation
from tests.support.fault_services import RedisServer
from tests.support.postgres_pair import PostgresPair
from tests.support.project import Project, leftover_processes, wait_until
from tests.support.silent_connections import SilentProxy

ROW_SECONDS = 0.25
ROWS_A_SECOND = 40
PROCESSES = 2


class Gremlin:
    """Breaks one thing after another, at random."""

    def __init__(
        self, seed: int, project: Project, broker: RedisServer, proxy: SilentProxy, postgres: PostgresPair
    ) -> None:
        self._random = random.Random(seed)
        self._project = project
        self._broker = broker
        self._proxy = proxy
        self._postgres = postgres
        self.broken: Counter[str] = Counter()

    def strike(self) -> None:
        faults: list[Callable[[], None]] = [
            self._kill_a_worker_process,
            self._pause_a_worker_process,
            self._restart_redis,
            self._flush_redis,
            self._pause_redis,
            self._silence_redis,
            self._restart_postgresql,
            self._silence_postgresql,
            self._fail_postgresql_over,
        ]
        fault = self._random.choice(faults)
        self.broken[fault.__name__.strip("_")] += 1
        fault()

    def pause(self) -> float:
        """Seconds until the next strike."""
        return self._random.uniform(3.0, 9.0)

    def _worker(self) -> int | None:
        live = [worker.info.pid for worker in self._project.workers() if worker.left_at is None]
        return self._random.choice(live) if live else None

    def _kill_a_worker_process(self) -> None:
        if (pid := self._worker()) is not None:
            _send(pid, signal.SIGKILL)

    def _pause_a_worker_process(self) -> None:
        if (pid := self._worker()) is not None:
            _send(pid, signal.SIGSTOP)
            time.sleep(self._random.uniform(0.5, 5.0))
            _send(pid, signal.SIGCONT)

    def _restart_redis(self) -> None:
        self._broker.kill()
        time.sleep(self._random.uniform(0.0, 2.0))
        self._broker.start()

    def _flush_redis(self) -> None:
        self._broker.client.flushall()

    def _pause_redis(self) -> None:
        self._broker.pause()
        time.sleep(self._random.uniform(0.5, 5.0))
        self._broker.resume()

    def _silence_redis(self) -> None:
        self._proxy.silence()

    def _restart_postgresql(self) -> None:
        self._postgres.restart()

    def _silence_postgresql(self) -> None:
        self._postgres.silence_connections()

    def _fail_postgresql_over(self) -> None:
        """Promote the standby; the old primary is read-only, dead or cut off. Soon it is the standby."""
        fail_over = self._random.choice([self._postgres.demote, self._postgres.kill, self._postgres.silence])
        fail_over()
        time.sleep(self._random.uniform(0.0, 5.0))
        self._postgres.rebuild()


def _send(pid: int, which: signal.Signals) -> None:
    try:
        os.kill(pid, which)
    except ProcessLookupError:
        # The process has ended since; the next strike finds another.
        return


def soak(minutes: float, seed: int) -> bool:
    """Whether every invariant held."""
    rows = int(minutes * 60 * ROWS_A_SECOND)
    with tempfile.TemporaryDirectory(prefix="doteval-soak-") as name, closing(Commands()) as commands:
        directory = Path(name)
        (directory / "project").mkdir()
        project = Project.begin(directory / "project", commands)
        broker = RedisServer(directory / "redis")
        broker.start()
        (directory / "pg").mkdir()
        # PostgreSQL runs as another user than root.
        directory.chmod(0o755)
        write_evaluation(project, rows=rows, seconds=ROW_SECONDS)
        try:
            with SilentProxy(broker.port) as proxy, PostgresPair(directory / "pg") as postgres:
                project.environment["DOTEVAL_BROKER"] = f"redis://127.0.0.1:{proxy.port}/0"
                project.environment["DOTEVAL_STORAGE"] = postgres.address
                return _soak(project, Gremlin(seed, project, broker, proxy, postgres), minutes, rows, seed)
        finally:
            broker.stop()


def _soak(project: Project, gremlin: Gremlin, minutes: float, rows: int, seed: int) -> bool:
    with project.started("worker", ".", "--processes", str(PROCESSES)):
        wait_until(lambda: len(project.workers()) >= PROCESSES, what="the worker processes")
        end = time.monotonic() + minutes * 60
        # A row may be in flight at two kills without being to blame.
        options = ("--experiment", "soak", "--max-crashes", "1000")
        with project.started("submit", "eval_it.py", *options) as submitter:
            while time.monotonic() < end and submitter.poll() is None:
                time.sleep(gremlin.pause())
                gremlin.strike()
            calm = time.monotonic()
            code = submitter.wait(minutes * 60 + 120)
            took = time.monotonic() - calm
    records = project.records("soak")["eval_steady"]
    indexes = Counter(record.row.index for record in records)
    begun = sum(count for what, count in project.counts().items() if what.startswith("begin"))
    faults = sum(gremlin.broken.values())
    lost = rows - len(indexes)
    twice = sum(count - 1 for count in indexes.values())
    failed = sum(record.outcome.status != "done" for record in records)
    with project.store() as store:
        evaluation = store.evaluations.of(store.experiments.find("soak"))[0]
    print(f"seed {seed}, {minutes:g} minutes, {rows} rows, {faults} faults: {dict(gremlin.broken)}")
    print(f"submit exited with {code}, {took:.1f} s after the last fault; the evaluation is {evaluation.status}")
    print(f"lost {lost}, stored twice {twice}, failed {failed}; executed again {begun - rows}")
    print(f"counts: {evaluation.counts}; left over: {leftover_processes(project.path)}")
    held = code == 0 and not (lost or twice or failed) and evaluation.counts.done == rows
    print("every invariant held" if held else "AN INVARIANT DID NOT HOLD; the output:\n" + project.output()[-5000:])
    return held


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    given = parser.parse_args()
    sys.exit(0 if soak(given.minutes, given.seed) else 1)
