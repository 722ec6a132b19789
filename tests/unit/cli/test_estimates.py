"""What `submit --estimate` says where it does not ask."""

from __future__ import annotations

import io
from datetime import UTC, datetime

from rich.console import Console

from doteval.analysis.estimate import UsageEstimate
from doteval.cli.estimates import EstimateChoice
from doteval.cli.progress import ProgressDisplay
from doteval.core.experiments import Experiment


def test_where_the_sample_was_everything_nothing_is_estimated_or_asked() -> None:
    console = Console(file=io.StringIO(), width=100)
    found = UsageEstimate(rows=4, rows_left=0, failed=0, at_once=1, amounts={})
    choice = EstimateChoice(10, estimate_only=False, yes=False, as_json=False)
    assert choice.agrees(Experiment(1, "x", datetime.now(UTC)), found, ProgressDisplay(console), console)
    assert console.file.getvalue() == "Nothing is left to estimate: all rows have run, 4 rows now\n"  # type: ignore[attr-defined]
