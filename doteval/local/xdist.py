"""Evaluations under pytest-xdist: its workers run them, its controller names the experiment and reports.

Only numbers and texts travel between them, since xdist can carry nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest

from doteval.core.experiments import ephemeral_name

_KEY = "doteval"


def give_name(config: pytest.Config, workerinput: dict[str, Any]) -> None:
    """In the controller: give all workers one experiment name, if the user gave none."""
    if config.getoption("experiment") is None:
        name = config.stash.setdefault(_name_key, ephemeral_name())
        workerinput[_KEY] = name


def given_name(config: pytest.Config) -> str | None:
    """In a worker: the experiment name from the controller. None elsewhere."""
    name = getattr(config, "workerinput", {}).get(_KEY)
    return name if isinstance(name, str) else None


def command_of(config: pytest.Config) -> list[str]:
    """The arguments of the user's command: in a worker those of the controller."""
    given = getattr(config, "workerinput", {}).get("mainargv")
    return list(given) if isinstance(given, list) else list(sys.argv)


def hand_over(config: pytest.Config, experiment: Any) -> None:
    """In a worker: send the reports of `experiment`, a `LocalExperiment`, to the controller. Elsewhere: do nothing."""
    output = getattr(config, "workeroutput", None)
    if output is not None:
        output[_KEY] = {
            "reports": [[each.raw_url, each.report.evaluation.uid, each.report.resumed] for each in experiment.reports],
            "thresholds": [[each.target, each.minimum] for each in experiment.applied_thresholds],
        }


def take_over(workeroutput: dict[str, Any], reports: list[Any], applied_thresholds: set[Any]) -> None:
    """In the controller: add the reports from a worker, as `StoredReport`s, and the thresholds that applied."""
    handed = workeroutput.get(_KEY)
    if not handed:
        return
    from doteval.analysis.thresholds import Threshold
    from doteval.local.evaluation import report_on
    from doteval.local.session import StoredReport
    from doteval.store import Store

    for raw_url, uid, resumed in handed["reports"]:
        with Store.open(raw_url, create=False) as store:
            report = report_on(store, store.evaluations.by_uid(uid), resumed=resumed)
            reports.append(StoredReport(report, store.url, raw_url))
    applied_thresholds.update(Threshold(target, minimum) for target, minimum in handed["thresholds"])


_name_key = pytest.StashKey[str]()
