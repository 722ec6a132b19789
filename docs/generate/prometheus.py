"""The page of figures for Prometheus."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docs.generate.markdown import MissingTextError, code, page_of, table
from doteval.monitoring.process_figures import FIGURES
from doteval.monitoring.store_figures import StoreFigures
from doteval.store import Store


class _NoQueue:
    """Stands for a broker with empty queues, so that its figures are listed."""

    def queued(self, *, queue: str) -> int:  # noqa: ARG002 - the protocol's signature
        return 0


def page() -> str:
    with tempfile.TemporaryDirectory() as directory, Store.open(str(Path(directory) / "empty.db")) as store:
        of_store = [
            (family.name, family.type, family._labelnames, family.documentation)  # type: ignore[attr-defined]
            for family in StoreFigures(store, _NoQueue()).collect()
        ]
    return page_of(
        "Figures for Prometheus",
        "Two endpoints have figures, both at `/metrics`. How to run and alert on them is in "
        "[the services beside the workers](../../infra/README.md).",
        "## Figures of the store: `doteval metrics`",
        "They are read from the store when Prometheus asks, for evaluations that run or ended within the hour. Any number of "
        "exporters report the same, so one is enough.",
        _figures(of_store),
        "## Figures of a worker service: `--metrics-port`",
        "They are summed over the processes of the service, those that have ended too. Add them up over services.",
        _figures(_family(figure) for figure in FIGURES),
    )


def _family(figure: Any) -> tuple[str, str, Iterable[str], str]:
    (described,) = figure.describe()
    ending = "_total" if described.type == "counter" else ""
    return f"{described.name}{ending}", described.type, figure._labelnames, described.documentation


def _figures(found: Iterable[tuple[str, str, Iterable[str], str]]) -> str:
    lines = []
    for name, kind, labels, meaning in found:
        if not meaning:
            raise MissingTextError(f"the figure {name} has no text")
        lines.append((code(name), kind, ", ".join(map(code, labels)), meaning))
    return table(["name", "type", "labels", "meaning"], lines)
