"""What worker processes count for Prometheus, and the sum over the processes of a service.

Each worker process counts into files of its own in a directory that the service names by PROMETHEUS_MULTIPROC_DIR; the
service adds them up when Prometheus asks. So the counts of a process that died stay in the sum, and rates are right.
Without that variable nobody asks, and rows are not counted.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

from doteval.core.results import Outcome
from doteval.monitoring import DIRECTORY_VARIABLE

# Read at the import, as Prometheus' client does.
_IS_ASKED = DIRECTORY_VARIABLE in os.environ

_REGISTRY = CollectorRegistry()
_PREFIX = "doteval_worker"
_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROW_SECONDS = (0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

_ROWS = Counter("rows", "Rows that ended here and are stored.", ["status"], namespace=_PREFIX, registry=_REGISTRY)
_ERRORS = Counter("errors", "Failed rows by class of error.", ["class"], namespace=_PREFIX, registry=_REGISTRY)
_SECONDS = Histogram(
    "row_seconds", "Seconds that rows took.", namespace=_PREFIX, registry=_REGISTRY, buckets=_ROW_SECONDS
)
_COMMITS = Histogram(
    "commit_seconds",
    "Seconds that a group of results took into the store, pauses while it was away included.",
    namespace=_PREFIX,
    registry=_REGISTRY,
    buckets=_COMMIT_SECONDS,
)
_IN_FLIGHT = Gauge(
    "rows_in_flight", "Rows that run now.", namespace=_PREFIX, registry=_REGISTRY, multiprocess_mode="livesum"
)
_TOKENS = Counter("tokens", "Tokens of rows.", ["model", "kind"], namespace=_PREFIX, registry=_REGISTRY)
_COST = Counter("cost_dollars", "Cost of rows in US dollars.", ["model"], namespace=_PREFIX, registry=_REGISTRY)
_CACHE = Counter("cache", "Look-ups in caches.", ["model", "outcome"], namespace=_PREFIX, registry=_REGISTRY)
_WAITED = Counter(
    "limit_wait_seconds", "Seconds spent waiting for limits.", ["model"], namespace=_PREFIX, registry=_REGISTRY
)
# Everything that is counted here.
FIGURES = (_ROWS, _ERRORS, _SECONDS, _COMMITS, _IN_FLIGHT, _TOKENS, _COST, _CACHE, _WAITED)


def count_stored(outcome: Outcome) -> None:
    """Count a row whose result is stored."""
    if not _IS_ASKED:
        return
    _rows_that(outcome.status.value).inc()
    _SECONDS.observe(outcome.seconds)
    if outcome.error is not None and outcome.status == "failed":
        _ERRORS.labels(outcome.error.error_class.value).inc()
    for usage in outcome.usage:
        prompt, completion, cost, hits, misses, waited = _counters_of(usage.model)
        prompt.inc(usage.prompt_tokens)
        completion.inc(usage.completion_tokens)
        cost.inc(usage.cost or 0.0)
        hits.inc(usage.cache_hits)
        misses.inc(usage.cache_misses)
        waited.inc(usage.waited)


# Finding a counter by its labels takes longer than counting.


@cache
def _rows_that(status: str) -> Counter:
    return _ROWS.labels(status)


@cache
def _counters_of(model: str) -> tuple[Counter, ...]:
    return (
        _TOKENS.labels(model, "prompt"),
        _TOKENS.labels(model, "completion"),
        _COST.labels(model),
        _CACHE.labels(model, "hit"),
        _CACHE.labels(model, "miss"),
        _WAITED.labels(model),
    )


def count_commit(seconds: float) -> None:
    """Count a group of results whose commit took `seconds`."""
    _COMMITS.observe(seconds)


def set_rows_in_flight(rows: int) -> None:
    """Set how many rows are in flight now."""
    _IN_FLIGHT.set(rows)


def collected(directory: Path, live: Collection[int]) -> CollectorRegistry:
    """The sum over the worker processes that have counted in a directory. `live` are the pids of those that live."""
    for file in directory.glob("gauge_live*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and int(pid) not in live:
            file.unlink(missing_ok=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return registry
