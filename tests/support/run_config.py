"""A run configuration in which no field has its default."""

from __future__ import annotations

from doteval.core.batches import AfterDeadline
from doteval.core.call_journal import JournalMode
from doteval.core.client_config import CacheChoice, CacheMode
from doteval.core.rescoring import MissingCalls, Rescoring
from doteval.core.run_config import RunConfig

FULL = RunConfig(
    max_retries=0,
    retry_delay=0.5,
    row_timeout=30.0,
    max_crashes=4,
    max_requests=1,
    max_tokens=2,
    max_cost=0.25,
    cache=CacheChoice(CacheMode.REFRESH, 12.5),
    reducer="mode",
    journal=JournalMode.USAGE,
    replay=True,
    batch=True,
    batch_linger=5.0,
    batch_deadline=7200.0,
    then=AfterDeadline.LIVE,
    batch_tokens=90_000,
    own_batch=True,
    submitted=True,
    root="/evals",
    queue="gpu",
    queue_is_own=True,
    private_broker="p1",
    batch_size=8,
    concurrency=16,
    concurrency_is_own=True,
    strict_xfail="a weak model",
    imported_from="/logs/a.eval",
    rescoring=Rescoring("first", ("u1", "u2"), MissingCalls.LIVE),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)
