"""Latencies with a heavy tail: do slow rows delay others?

Latencies are lognormal with a median of 0.1 s and a p99 of 2 s, 100 rows at a time. The ideal is one sliding window
over all processes, where the next row begins as soon as any row ends. It is computed from the same latencies, which the
server draws in the order of its requests from a generator with a known seed.
"""

from __future__ import annotations

import heapq
import math
import random
from functools import partial

from benchmarks.bench import Bench
from benchmarks.figures import shown
from benchmarks.subjects.latency import rate_of_submit

MEDIAN, P99 = 0.1, 2.0
# In a lognormal distribution, ln(p99 / median) is sigma times the 99% quantile of the normal distribution.
SIGMA = math.log(P99 / MEDIAN) / 2.3263
SEED = 7
CONCURRENCY = 100


def ideal_rate(rows: int) -> float:
    """The rows a second of an ideal sliding window."""
    draw = random.Random(SEED)
    ends: list[float] = []
    last = 0.0
    for _ in range(rows):
        begin = heapq.heappop(ends) if len(ends) == CONCURRENCY else 0.0
        end = begin + draw.lognormvariate(math.log(MEDIAN), SIGMA)
        last = max(last, end)
        heapq.heappush(ends, end)
    return rows / last


def measure(bench: Bench) -> None:
    rows = bench.rows(10_000)
    # Both are scaled, so that the distribution keeps its shape.
    median, p99 = bench.seconds(MEDIAN), bench.seconds(P99)
    work = f"lognormal latency, median {shown(median)} s, p99 {shown(p99)} s, {CONCURRENCY} at a time"
    ideal = bench.rate(ideal_rate(rows))
    bench.report.add(work, "ideal", "rows/s", [ideal])
    server = {"latency": median, "latency_sigma": SIGMA, "seed": SEED}
    way = partial(rate_of_submit, bench, "eval_latency.py", rows, CONCURRENCY, **server)
    (figure,) = bench.compare(work, "rows/s", {"doteval submit, two worker processes": way}).values()
    bench.report.aim(work, "share of the ideal", figure.median / ideal, 0.92)
