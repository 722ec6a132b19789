"""Figures, targets, and the report that prints and stores them."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.environments import versions


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, measured one or more times. `work` is what was done, `way` is how and by which runner."""

    work: str
    way: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Target:
    """A measured `value` and its `aim`, which is a lower bound if `at_least`, else an upper bound."""

    work: str
    what: str
    value: float
    aim: float
    at_least: bool = True

    @property
    def sign(self) -> str:
        return "≥" if self.at_least else "≤"

    @property
    def reached(self) -> bool:
        return self.value >= self.aim if self.at_least else self.value <= self.aim


@dataclass(slots=True)
class Report:
    figures: list[Figure] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    console: Console = field(default_factory=lambda: Console(width=130, highlight=False))

    def add(self, work: str, way: str, unit: str, values: Sequence[float]) -> Figure:
        figure = Figure(work, way, unit, tuple(values))
        self.figures.append(figure)
        self.console.print(f"{work}: {way}: {shown(figure.median)} {unit}", soft_wrap=True)
        return figure

    def aim(self, work: str, what: str, value: float, aim: float, *, at_least: bool = True) -> None:
        self.targets.append(Target(work, what, value, aim, at_least))

    def print(self) -> None:
        table = Table(box=None, title="Measured", title_justify="left")
        for name in ("work", "way", "median", "min", "max", "unit"):
            table.add_column(name, justify="right" if name in ("median", "min", "max") else "left")
        before = ""
        for figure in self.figures:
            if before and figure.work != before:
                table.add_row()
            work, before = ("" if figure.work == before else figure.work), figure.work
            values = [shown(value) for value in (figure.median, min(figure.values), max(figure.values))]
            table.add_row(work, figure.way, *values, figure.unit)
        self.console.print(table)
        if not self.targets:
            return
        aims = Table(box=None, title="\nAims", title_justify="left")
        for name in ("work", "what", "measured", "aim", ""):
            aims.add_column(name, justify="right" if name in ("measured", "aim") else "left")
        for target in self.targets:
            reached = "reached" if target.reached else "missed"
            aims.add_row(target.work, target.what, shown(target.value), f"{target.sign} {shown(target.aim)}", reached)
        self.console.print(aims)

    def write(self, path: Path, repeat: int, slower: float) -> None:
        """Write figures and targets as JSON, with the date, the machine and the versions of the runners.

        `repeat` and `slower` are those of `Bench`.
        """
        content: dict[str, Any] = {
            "date": datetime.now(tz=UTC).date().isoformat(),
            "repeat": repeat,
            "slower": slower,
            "machine": {
                "processor": _processor(),
                "cores": os.cpu_count(),
                "memory": round(psutil.virtual_memory().total / 2**30),
                "system": f"{platform.system()} {platform.release()}",
                "python": platform.python_version(),
            },
            "runners": versions(),
            "figures": [
                {"work": f.work, "way": f.way, "unit": f.unit, "median": f.median, "values": f.values}
                for f in self.figures
            ],
            "targets": [
                {"work": t.work, "what": t.what, "value": t.value, "sign": t.sign, "aim": t.aim, "reached": t.reached}
                for t in self.targets
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")


def shown(value: float) -> str:
    """A figure with three significant digits, or as a whole number from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def _processor() -> str:
    """The model of the processor on Linux; elsewhere only its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
