"""Metrics: each reduces all values of one score to one number, with a 95% interval where one is defined.

The decorator `metric` makes one; `resolve` turns the name that the store keeps into a metric again. Installed
packages add metrics under the entry point group ``doteval.metrics``; they are imported from here like the built-in
ones, with ``from doteval.metrics import NAME``. May import `doteval.core` and
`doteval.errors`; numpy and scipy are imported only when an interval needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doteval.metrics.averages import accuracy, ci95, mean, std, stderr
from doteval.metrics.base import Calculation, Metric, NamedMetric, as_metric
from doteval.metrics.classes import f1, precision, recall
from doteval.metrics.intervals import Interval
from doteval.metrics.registry import available, metric, register, registry, resolve
from doteval.metrics.repeated import pass_at_k

__all__ = [
    "Calculation",
    "Interval",
    "Metric",
    "NamedMetric",
    "accuracy",
    "as_metric",
    "available",
    "ci95",
    "f1",
    "mean",
    "metric",
    "pass_at_k",
    "precision",
    "recall",
    "register",
    "registry",
    "resolve",
    "std",
    "stderr",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        if not name.startswith("_") and name in registry:
            return registry.get(name)
        raise AttributeError(f"module {__name__!r} has no metric {name!r}; there are: {', '.join(available())}")

    def __dir__():
        return sorted({*__all__, *available()})
