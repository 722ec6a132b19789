"""Evaluations under pytest-xdist: its workers evaluate, its controller names the experiment and reports.

What travels between them are numbers and texts, which is all that xdist can carry.
"""

from __future__ import annotations

from typing import Any

import pytest

from doteval.core.experiments import ephemeral_name

_KEY = "doteval"


def give_name(config: pytest.Config, workerinput: dict[str, Any]) -> None:
    """In the controller: have all workers use one experiment, if the user gave no name."""
    if config.getoption("experiment") is None:
        name = config.stash.setdefault(_name_key, ephemeral_name())
        workerinput[_KEY] = name


def given_name(config: pytest.Config) -> str | None:
    """In a worker: the name that the controller gave. None elsewhere."""
    name = getattr(config, "workerinput", {}).get(_KEY)
    return name if isinstance(name, str) else None


def hand_over(config: pytest.Config, local: Any) -> None:
    """In a worker: tell the controller what `local` (a `LocalExperiment`) has evaluated. Nothing elsewhere."""
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[_KEY] = {
            "reports": [
                [each.raw_url, each.report.evaluation.uid, each.report.resumed, each.report.seconds]
                for each in local.reports
            ],
            "thresholds": [[each.target, each.minimum] for each in local.applied_thresholds],
        }


def take_over(workeroutput: dict[str, Any], reports: list[Any], applied_thresholds: set[Any]) -> None:
    """In the controller: add what a worker has handed over, as `StoredReport`s and the thresholds that applied."""
    handed = workeroutput.get(_KEY)
    if not handed:
        return
    from doteval.analysis.thresholds import Threshold
    from doteval.local.evaluation import report_on
    from doteval.local.session import StoredReport
    from doteval.store import Store

    for raw_url, uid, resumed, seconds in handed["reports"]:
        with Store.open(raw_url, create=False) as store:
            report = report_on(store, store.evaluations.by_uid(uid), resumed=resumed, seconds=seconds)
            reports.append(StoredReport(report, store.url, raw_url))
    applied_thresholds.update(Threshold(target, minimum) for target, minimum in handed["thresholds"])


_name_key = pytest.StashKey[str]()
