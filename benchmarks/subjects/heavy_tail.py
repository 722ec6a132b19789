"""Latencies with a heavy tail: do slow rows hold up others?

Lognormal, median 0.1 s and p99 2 s, 100 at a time. The ideal is one sliding window over all processes: the next row
begins as soon as any row ends. It is computed from the same latencies, which the server draws in the order of its
requests from a generator with a known seed.
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
# Of a lognormal distribution: ln(p99 / median) is sigma times the normal distribution's 99% quantile.
SIGMA = math.log(P99 / MEDIAN) / 2.3263
SEED = 7
CONCURRENCY = 100


def ideal_rate(rows: int) -> float:
    """Rows a second of a sliding window that nothing holds up."""
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
    # The shape of the latencies stays.
    median, p99 = bench.seconds(MEDIAN), bench.seconds(P99)
    work = f"lognormal latency, median {shown(median)} s, p99 {shown(p99)} s, {CONCURRENCY} at a time"
    ideal = bench.rate(ideal_rate(rows))
    bench.report.add(work, "ideal", "rows/s", [ideal])
    server = {"latency": median, "latency_sigma": SIGMA, "seed": SEED}
    way = partial(rate_of_submit, bench, "eval_latency.py", rows, CONCURRENCY, **server)
    (figure,) = bench.compare(work, "rows/s", {"doteval submit, two worker processes": way}).values()
    bench.report.aim(work, "share of the ideal", figure.median / ideal, 0.92)
