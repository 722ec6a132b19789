"""The metrics of an evaluation as a mapping, as scripts and notebooks use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from doteval.analysis.figures import figure
from doteval.analysis.summary import Summary
from doteval.core.wording import counted


class ResultsSummary(Mapping[str, Any]):
    """The metrics by score: ``summary["exact_match"]["accuracy"]``.

    As in earlier releases, ``summary["metrics"]`` holds the same, ``summary["total"]`` is the number of rows
    and ``summary["errors"]`` of those that failed, unless a score has such a name. `details` has intervals
    and the figures without errors; `dataset_notes` says what is odd about the dataset.
    """

    def __init__(self, details: Summary, dataset_notes: tuple[str, ...] = ()) -> None:
        self.details = details
        self.dataset_notes = dataset_notes
        self._metrics = details.to_dict()

    def __getitem__(self, name: str) -> Any:
        if name in self._metrics:
            return self._metrics[name]
        counts = self.details.counts
        return {"metrics": self._metrics, "total": counts.finished, "errors": counts.failed}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __repr__(self) -> str:
        counts = self.details.counts
        metrics = [f"{score.name}.{m.name} {figure(m.value)}" for score in self.details for m in score.metrics]
        figures = ", ".join([*metrics, counted(counts.finished, "row"), counted(counts.failed, "error")])
        return "; ".join([figures, *self.details.warnings, *self.dataset_notes, *self.details.notes])
