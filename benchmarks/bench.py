"""What every subject needs: where to work, how often, and where figures go."""

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
    """`repeat`: how often each way is measured. `scale`: the share of the rows, 1.0 for the published figures.

    `slower`: how many times slower the machine is than the one that the aims were set for. What rows take of a server
    or of the processor is so many times as long then, and aims of rates and seconds follow; ratios are to hold.
    """

    repeat: int = 3
    scale: float = 1.0
    peers: bool = True
    slower: float = 1.0
    report: Report = field(default_factory=Report)

    def rows(self, full: int) -> int:
        return max(10, int(full * self.scale))

    def seconds(self, at_full_speed: float) -> float:
        """What takes so many seconds on a machine of full speed takes so many here."""
        return at_full_speed * self.slower

    def rate(self, at_full_speed: float) -> float:
        """What makes so many a second on a machine of full speed makes so many here."""
        return at_full_speed / self.slower

    def compare(self, work: str, unit: str, ways: Mapping[str, Way], *, repeat: int | None = None) -> dict[str, Figure]:
        """Measure every way in turn, and all of them again: what disturbs the machine meets all alike."""
        values: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeat or self.repeat):
            for way, measure in ways.items():
                values[way].append(measure())
        return {way: self.report.add(work, way, unit, found) for way, found in values.items()}

    def doteval(self, directory: Path, *arguments: str, **environment: str) -> Measured:
        return measured([python_of("doteval"), "-m", "doteval", *arguments], directory, environment)

    def pytest(self, directory: Path, *arguments: str, **environment: str) -> Measured:
        """pytest in doteval's environment."""
        return measured([python_of("doteval"), "-m", "pytest", "-q", *arguments], directory, environment)

    def peer(self, name: str, directory: Path, *arguments: str, **environment: str) -> Measured:
        """Python in a peer's environment."""
        return measured([python_of(name), *arguments], directory, environment)

    def two_peers(self, name: str, file: str, **environment: str) -> list[Measured]:
        """A script in two processes of a peer's environment at once, each in a directory of its own."""

        def one(_: int) -> Measured:
            with project(PEERS / file) as directory:
                return self.peer(name, directory, file, **environment)

        # Made before both need it.
        python_of(name)
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, range(2)))


@contextmanager
def project(*files: Path) -> Iterator[Path]:
    """A fresh directory with copies of these files, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        directory = Path(name)
        # The root directory for pytest.
        (directory / "pytest.ini").write_text("[pytest]\n")
        for file in files:
            shutil.copy(file, directory / file.name)
        yield directory
