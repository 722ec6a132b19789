"""Faults that a request can ask for.

A fault is written ``NAME[:VALUE][xTIMES][@SHARE]``:

=================  =====================================================================
``status:429``     an error reply with that status; 429 and 503 carry Retry-After
``retry-after:2``  the seconds that Retry-After names (1 if not given)
``delay:0.5``      the reply comes that many seconds later
``hangup``         the connection is closed in the middle of the reply
``malformed``      status 200 with a truncated body, which is not JSON
=================  =====================================================================

``x2`` limits a fault to the first two requests with the same prompt, ``@0.1`` to a tenth of the
requests, chosen by a hash of the seed, the prompt and the number of the request with that prompt, so
that the same requests fail in any order of arrival.

Faults are given on the command line (``--fault``, for every request), in the header
``x-mock-fault`` (several separated by commas), and by markers in the prompt, ``[[status:500x1]]``.
Markers also set the reply, ``[[reply:any text]]``, and the usage, ``[[cached:3]]`` prompt tokens and
``[[reasoning:5]]`` tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

_FAULT = re.compile(
    r"(?P<name>status|retry-after|delay|hangup|malformed)"
    r"(?::(?P<value>\d+(?:\.\d+)?))?(?:x(?P<times>\d+))?(?:@(?P<share>\d+(?:\.\d+)?))?"
)
_NEEDS_VALUE = frozenset({"status", "retry-after", "delay"})
_MARKER = re.compile(r"\[\[([^\[\]]+)\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. It hits the first `times` requests of each prompt (None: all), and of these the part `share`."""

    name: str
    value: float = 0.0
    times: int | None = None
    share: float = 1.0

    def hits(self, prompt_key: bytes, nth: int, seed: int) -> bool:
        """Whether it hits the `nth` request (from 1) with the prompt whose digest is `prompt_key`."""
        if self.times is not None and nth > self.times:
            return False
        if self.share >= 1.0:
            return True
        drawn = hashlib.blake2b(prompt_key + f"{self.name} {nth} {seed}".encode(), digest_size=8).digest()
        return int.from_bytes(drawn, "big") / 2**64 < self.share


@dataclass(slots=True)
class Effects:
    """The combined effect of the faults and markers of one request. Times are in seconds."""

    status: int = 200
    retry_after: float = 1.0
    delay: float = 0.0
    hangup: bool = False
    malformed: bool = False
    reply: str | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def apply(self, fault: Fault) -> None:
        """Add the effect of a fault."""
        match fault.name:
            case "status":
                self.status = int(fault.value)
            case "retry-after":
                self.retry_after = fault.value
            case "delay":
                self.delay += fault.value
            case "hangup":
                self.hangup = True
            case "malformed":
                self.malformed = True


def parse_fault(text: str) -> Fault:
    """Parse a fault. Raises ValueError for a text that is not one.

    >>> parse_fault("status:429x2@0.5")
    Fault(name='status', value=429.0, times=2, share=0.5)
    """
    found = _FAULT.fullmatch(text.strip())
    if found is None or (found["name"] in _NEEDS_VALUE) is not (found["value"] is not None):
        raise ValueError(
            f"{text!r} is not a fault: use status:N, retry-after:S, delay:S, hangup or malformed, with [xTIMES][@SHARE]"
        )
    return Fault(
        found["name"],
        float(found["value"] or 0.0),
        int(found["times"]) if found["times"] else None,
        float(found["share"]) if found["share"] else 1.0,
    )


def effects_of(
    faults: Iterable[Fault], header: str | None, prompt: str, prompt_key: bytes, nth: int, seed: int
) -> Effects:
    """The effects for one request. Raises ValueError for an unknown fault in a header or a marker.

    `nth`: the number of the request with this prompt, from 1.
    """
    effects = Effects()
    asked = list(faults)
    if header:
        asked += [parse_fault(part) for part in header.split(",")]
    if "[[" in prompt:
        for marker in _MARKER.findall(prompt):
            name, _, value = marker.partition(":")
            match name:
                case "reply":
                    effects.reply = value
                case "cached":
                    effects.cached_tokens = int(value)
                case "reasoning":
                    effects.reasoning_tokens = int(value)
                case _:
                    asked.append(parse_fault(marker))
    for fault in asked:
        if fault.hits(prompt_key, nth, seed):
            effects.apply(fault)
    return effects
