"""Metrics: from all values of one score to one number, with a 95% interval where one is defined.

`@metric` makes one. Packages bring more under the entry point group ``doteval.metrics``.
"""

from doteval.metrics.averages import accuracy, ci95, mean, std, stderr
from doteval.metrics.base import Calculation, Metric, NamedMetric, as_metric, available, metric, register, resolve
from doteval.metrics.classes import f1, precision, recall
from doteval.metrics.intervals import Interval
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
    "resolve",
    "std",
    "stderr",
]
