"""The settings of a mock server."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from doteval.mock_openai.faults import parse_fault


@dataclass(frozen=True, slots=True)
class MockSettings:
    """The behaviour of a mock server; the command line has a flag for each setting.

    `port`: 0 picks a free one.

    `latency`: seconds until a reply. With `latency_sigma` above 0 it is the median of a lognormal distribution with
    that sigma, drawn with `seed`.

    `rate_limit`: requests a second, 0 for none. The server has a token bucket of one second's requests; when it is
    empty, replies are 429 with Retry-After. All replies have the ``x-ratelimit-*-requests`` headers; with
    `rate_limit_headers` 0 none has, so that clients learn the limit from rejections only.

    `faults`: hit every request; `doteval.mock_openai.faults` describes their notation.

    `reply`: the rule for the text of replies: ``auto`` (see `texts.reply_text`), ``echo`` (the last user message), or
    any other text, which is then every reply.

    `batch_latency`: seconds from the creation of a batch to its end, drawn as `latency` is with `batch_latency_sigma`.
    Its requests are answered evenly over that time.

    `batch_window`: seconds that a completion window of 24 hours lasts; then the batch expires.

    `batch_requests`, `batch_bytes`: the most requests of a batch, and bytes of its file. `batch_tokens`: the most
    tokens of a model in all batches that have not ended, 0 for no limit.

    Raises ValueError for a negative number and a text that is not a fault.

    >>> MockSettings(latency=0.1, faults=("status:429@0.5",)).port
    0
    """

    host: str = "127.0.0.1"
    port: int = 0
    latency: float = 0.0
    latency_sigma: float = 0.0
    seed: int = 0
    rate_limit: float = 0.0
    rate_limit_headers: int = 1
    faults: tuple[str, ...] = ()
    reply: str = "auto"
    batch_latency: float = 0.0
    batch_latency_sigma: float = 0.0
    batch_window: float = 24 * 3600.0
    batch_requests: int = 50_000
    batch_bytes: int = 200 * 2**20
    batch_tokens: int = 0

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        for fault in self.faults:
            parse_fault(fault)


_NUMBERS = (
    *("latency", "latency_sigma", "rate_limit", "rate_limit_headers", "batch_latency", "batch_latency_sigma"),
    *("batch_window", "batch_requests", "batch_bytes", "batch_tokens"),
)


def drawn_seconds(source: random.Random, median: float, sigma: float) -> float:
    """A draw from a lognormal distribution; the median itself if one of the two is 0.

    >>> drawn_seconds(random.Random(1), 0.1, 0)
    0.1
    """
    return source.lognormvariate(math.log(median), sigma) if median and sigma else median
