"""How one mock server behaves."""

from __future__ import annotations

from dataclasses import dataclass

from doteval.mock_openai.faults import parse_fault


@dataclass(frozen=True, slots=True)
class MockSettings:
    """The settings of a mock server; the command line has a flag for each.

    `latency` is the time to a reply in seconds. With `latency_sigma` above 0 it is the median of a
    lognormal distribution with that sigma, drawn from a generator with `seed`.

    `rate_limit` is in requests per second, 0 for none: a bucket of one second's requests, beyond
    which replies are 429 with Retry-After and the ``x-ratelimit-*-requests`` headers.
    With `rate_limit_headers` 0 it keeps those to itself: clients then know its limit from rejections only.

    `faults` hit every request; see `doteval.mock_openai.faults` for how they are written.

    `reply` is the rule for the reply's text: ``auto`` (see `replies.reply_text`), ``echo`` (the
    last user message), or any other text, which is then every reply.

    Port 0 takes a free one. Raises ValueError for a value that makes no sense.
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

    def __post_init__(self) -> None:
        for name in ("latency", "latency_sigma", "rate_limit", "rate_limit_headers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        for fault in self.faults:
            parse_fault(fault)
