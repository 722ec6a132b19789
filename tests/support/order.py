"""The order in which tests run on the worker processes of xdist.

xdist gives each of its processes a part of the tests, as many as the others have, in the order of their collection.
A process that has run its own takes tests from the end of another's part. So each part begins with tests that take long
and ends with short ones: else one process would run the longest tests one after another, and the others would have
nothing left to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
# About how many seconds a test takes, by its directory. What takes less time fills the parts.
_SECONDS = {"faults": 12.0, "browser": 3.0, "acceptance": 4.0, "plugin": 1.0}
_SECONDS_OF_OTHERS = 0.1
# Tests that take a minute and more.
_LONGEST = {
    "test_the_image_is_built": 150.0,
    "test_every_invariant_holds": 80.0,
    "test_a_row_longer_than": 60.0,
    "test_logs_that_inspect_ai_writes": 60.0,
}
# Starting one of these takes a process several seconds, so only every third process has one.
_PARTS_OF_SERVERS = {"rabbitmq": 0, "postgres": 1, "browser": 2}
_SECONDS_ON_SERVERS = 0.5


@dataclass
class _Unit:
    """Tests of one file, which may share what they start."""

    server: str
    seconds: float
    items: list[pytest.Item]

    @property
    def total(self) -> float:
        return self.seconds * len(self.items)


# After pytest has deselected tests by their marks, so that the parts are those of xdist.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    count = getattr(config, "workerinput", {}).get("workercount", 1)
    if count > 1:
        items[:] = dealt(items, count)


def dealt(items: Sequence[pytest.Item], count: int) -> list[pytest.Item]:
    """The items in `count` parts of equal length, one after another, each with about the same work."""
    units = sorted(_units(items), key=lambda unit: unit.total, reverse=True)
    rest = [item for unit in units if unit.seconds <= _SECONDS_OF_OTHERS for item in unit.items]
    parts: list[list[_Unit]] = [[] for _ in range(count)]
    # As xdist divides them.
    room = [(len(items) + number) // count for number in range(count)]
    for unit in units:
        if unit.seconds <= _SECONDS_OF_OTHERS:
            continue
        fitting = [number for number in range(count) if len(unit.items) <= room[number]]
        first = _PARTS_OF_SERVERS.get(unit.server)
        allowed = [number for number in fitting if first is None or number % 3 == first] or fitting
        if not allowed:
            rest += unit.items
            continue
        number = min(allowed, key=lambda number: sum(each.total for each in parts[number]))
        parts[number].append(unit)
        room[number] -= len(unit.items)
    ordered = []
    for part, left in zip(parts, room, strict=True):
        part.sort(key=lambda unit: unit.seconds, reverse=True)
        ordered += [item for unit in part for item in unit.items]
        ordered += rest[:left]
        del rest[:left]
    return ordered


def _units(items: Sequence[pytest.Item]) -> Iterator[_Unit]:
    found: dict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        seconds = next((seconds for name, seconds in _LONGEST.items() if item.name.startswith(name)), None)
        if seconds is None:
            found[item.path, _server_of(item)].append(item)
        else:
            yield _Unit(_server_of(item), seconds, [item])
    for (path, server), together in found.items():
        directory = path.relative_to(_TESTS).parts[0] if path.is_relative_to(_TESTS) else ""
        yield _Unit(server, _SECONDS.get(directory, _SECONDS_ON_SERVERS if server else _SECONDS_OF_OTHERS), together)


def _server_of(item: pytest.Item) -> str:
    fixtures = item.fixturenames if isinstance(item, pytest.Function) else []
    for server in _PARTS_OF_SERVERS:
        if server in item.name or any(fixture.startswith(server) for fixture in fixtures):
            return server
    return ""
