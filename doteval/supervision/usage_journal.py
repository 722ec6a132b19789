"""The usage journal: usage of rows that is not in the result store yet, in a file that outlives the process.

A process notes a request of a row when it begins, its usage when the reply comes, and that the row is stored once its
result is. When the process dies, its supervisor or the next command stores the usage that is left, so that the store
agrees with what the servers count. A note is a write to mapped memory, without a system call that would release the
GIL. It is in the file however the process dies, unless the whole machine fails.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from doteval.core.histogram import Latency
from doteval.core.metering import Meter, UsageScope
from doteval.core.results import Usage

# The size of the file. A full file, after about a thousand rows, is replaced by one with the open notes only.
_BYTES = 250_000
_VALUES = tuple(field.name for field in fields(Usage) if field.name not in ("model", "latency"))
_values = attrgetter(*_VALUES)


@dataclass(frozen=True, slots=True)
class UnstoredUsage:
    """The usage of one execution of a row.

    execution: the number under which its result is stored, None if there was no result yet.
    """

    scope: UsageScope
    usage: tuple[Usage, ...]
    execution: int | None = None


def usage_journal_path(directory: str | Path) -> Path:
    """The path of the usage journal of a process, in the directory for its journals."""
    return Path(directory) / "usage"


class UsageJournal:
    """The writer's side of the journal, in the process that runs rows. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._open: dict[UsageScope, list[bytes]] = {}
        self._map = _mapped(path, b"", _BYTES)
        self._used = 0

    def spent(self, scope: UsageScope, usage: Usage) -> None:
        """Note usage of a row."""
        self._note(scope, ["spent", *_key(scope), usage.model, _values(usage), usage.latency.to_text()])

    def ended(self, scope: UsageScope, execution: int) -> None:
        """Note that the result of the row is about to be stored under this execution."""
        self._note(scope, ["ended", *_key(scope), execution])

    def stored(self, scope: UsageScope) -> None:
        """Note that the result of the row is stored, with its usage."""
        with self._lock:
            if self._open.pop(scope, None) is not None:
                self._write(_line(["stored", *_key(scope)]))

    def close(self) -> None:
        """End the journal: what threads of rows that were given up spend later is not noted."""
        with self._lock:
            self._map.close()

    def _note(self, scope: UsageScope, note: list[Any]) -> None:
        line = _line(note)
        with self._lock:
            self._write(line)
            self._open.setdefault(scope, []).append(line)

    def _write(self, line: bytes) -> None:
        if self._map.closed:
            return
        if self._used + len(line) > len(self._map):
            self._replace_file(len(line))
        end = self._used + len(line)
        self._map[self._used : end] = line
        self._used = end

    def _replace_file(self, room: int) -> None:
        """Write the open notes to a new file that has room for at least `room` bytes more."""
        fresh = self._path.with_suffix(".fresh")
        lines = b"".join(line for lines in self._open.values() for line in lines)
        mapped = _mapped(fresh, lines, max(_BYTES, 2 * len(lines)) + room)
        fresh.replace(self._path)
        self._map.close()
        self._map, self._used = mapped, len(lines)


def _line(note: list[Any]) -> bytes:
    return orjson.dumps(note) + b"\n"


def _mapped(path: Path, lines: bytes, size: int) -> mmap.mmap:
    """Make a file with these lines, and zeros up to its size."""
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as file:
        # The whole size is written now. A note in a hole of the file would end the process if the disk were full.
        file.write(lines.ljust(size, b"\0"))
        file.flush()
        return mmap.mmap(file.fileno(), size)


def read_usage_journal(path: Path) -> list[UnstoredUsage]:
    """The usage of rows whose results are not stored; nothing if there is no journal."""
    found: dict[UsageScope, tuple[Meter, list[int]]] = {}
    for what, evaluation, index, sample, *rest in _notes(path):
        scope = UsageScope(evaluation, index, sample)
        if what == "stored":
            found.pop(scope, None)
            continue
        # A process of a newer release may have left other notes, and more in these.
        if what == "ended":
            found.setdefault(scope, (Meter(), []))[1].append(rest[0])
        elif what == "spent":
            model, values, latency, *_ = rest
            found.setdefault(scope, (Meter(), []))[0].add(_usage(model, values, latency))
    return [
        UnstoredUsage(scope, meter.reading(), executions[-1] if executions else None)
        for scope, (meter, executions) in found.items()
    ]


def _usage(model: str, values: Sequence[Any], latency: str) -> Usage:
    # A process of another release may have left fewer values or more: new ones are added behind the others.
    return Usage(model, **dict(zip(_VALUES, values, strict=False)), latency=Latency.from_text(latency))


def _notes(path: Path) -> Iterator[list[Any]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for line in content.rstrip(b"\0").splitlines():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            # The process died while it wrote the last line.
            return


def _key(scope: UsageScope) -> tuple[str, int, int]:
    return scope.evaluation, scope.index, scope.sample
