"""The settings of a mock server."""

from __future__ import annotations

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

    `reply`: the rule for the text of replies: ``auto`` (see `replies.reply_text`), ``echo`` (the last user message), or
    any other text, which is then every reply.

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

    def __post_init__(self) -> None:
        for name in ("latency", "latency_sigma", "rate_limit", "rate_limit_headers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        for fault in self.faults:
            parse_fault(fault)
