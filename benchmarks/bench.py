"""`Bench` runs commands and compares ways of doing the same work; every subject gets one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.commands import Measured, measured
from benchmarks.environments import CHECKOUT, python_of
from benchmarks.figures import Figure, Report

EVALUATIONS = CHECKOUT / "benchmarks" / "evaluations"
PEERS = CHECKOUT / "benchmarks" / "peers"

Way = Callable[[], float]


@dataclass(slots=True)
class Bench:
    """Measures ways of doing the same work and collects the figures in `report`.

    `repeat` is how often each way is measured, `scale` the share of the rows, 1.0 for the published figures. `peers`
    says whether other runners are measured too. `slower` is how many times slower this machine is than the one for
    which the aims were set: rows then take that many times as long on the server or the processor, and aims for rates
    and seconds are adapted, while aims for ratios stay.
    """

    repeat: int = 3
    scale: float = 1.0
    peers: bool = True
    slower: float = 1.0
    report: Report = field(default_factory=Report)

    def rows(self, full: int) -> int:
        return max(10, int(full * self.scale))

    def seconds(self, at_full_speed: float) -> float:
        """The seconds that work takes on this machine if it takes `at_full_speed` seconds on the reference machine."""
        return at_full_speed * self.slower

    def rate(self, at_full_speed: float) -> float:
        """The rate on this machine if it is `at_full_speed` a second on the reference machine."""
        return at_full_speed / self.slower

    def compare(self, work: str, unit: str, ways: Mapping[str, Way], *, repeat: int | None = None) -> dict[str, Figure]:
        """Measure all ways in turn, `repeat` times, so that a disturbance of the machine affects all of them alike."""
        values: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeat or self.repeat):
            for way, measure in ways.items():
                values[way].append(measure())
        return {way: self.report.add(work, way, unit, found) for way, found in values.items()}

    def doteval(self, directory: Path, *arguments: str, **environment: str) -> Measured:
        return measured([python_of("doteval"), "-m", "doteval", *arguments], directory, environment)

    def pytest(self, directory: Path, *arguments: str, **environment: str) -> Measured:
        """Run pytest in the environment of doteval."""
        return measured([python_of("doteval"), "-m", "pytest", "-q", *arguments], directory, environment)

    def peer(self, name: str, directory: Path, *arguments: str, **environment: str) -> Measured:
        """Run Python in the environment of a peer."""
        return measured([python_of(name), *arguments], directory, environment)

    def two_peers(self, name: str, file: str, **environment: str) -> list[Measured]:
        """Run a script in two processes of a peer's environment at once, each in a directory of its own."""

        def one(_: int) -> Measured:
            with project(PEERS / file) as directory:
                return self.peer(name, directory, file, **environment)

        # Make the environment before both processes need it.
        python_of(name)
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))


@contextmanager
def project(*files: Path) -> Iterator[Path]:
    """A new directory with copies of these files. It is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        directory = Path(name)
        # Makes this the root directory of pytest.
        (directory / "pytest.ini").write_text("[pytest]\n")
        for file in files:
            shutil.copy(file, directory / file.name)
        yield directory
