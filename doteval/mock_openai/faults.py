"""Faults that a request can ask for.

A fault is written ``[WHERE/]NAME[:VALUE][xTIMES][@SHARE]``. Requests to models know these:

==================  ===========================================================================
``status:429``      an error reply with that status; 429 and 503 carry Retry-After
``retry-after:2``   the seconds that Retry-After names (1 if not given)
``quota``           a 429 that no wait mends: the account has no credit
``delay:0.5``       the reply comes that many seconds later
``first-byte:0.5``  the headers come at once, the body that many seconds later
``pace:0.1``        that many seconds pass between the events of a stream
``silent``          nothing comes, and the connection stays open
``hangup``          the connection is closed in the middle of the reply
``cut``             a stream ends in the middle, as if it were whole
``malformed``       status 200 with a truncated body, which is not JSON
``error``           status 200 with an error in the body; in the middle of a stream
==================  ===========================================================================

WHERE is ``chat``, ``responses`` or ``embeddings`` (without it, all three), ``upload``, ``files``,
``batches`` or ``models`` (the requests to these endpoints), ``line`` (a request within a batch) or ``batch`` (a
whole batch). What ``hangup``, ``silent`` and ``malformed`` hide has been done all the same:
``batches/hangup`` creates the batch. A line knows ``status`` and

==================  ===========================================================================
``line/lost``       neither output nor error file has the request
``batch/fail``      the batch fails before its first request
``batch/expire:S``  the batch expires when the share S of its requests is done
``batch/stall``     the batch stays in progress for ever
``batch/delay:S``   the batch takes that many seconds more
==================  ===========================================================================

``x2`` limits a fault to the first two requests with the same prompt (or path; batches with the same
input), ``@0.1`` to a tenth of the requests, chosen by a hash of the seed, the prompt and the number
of the request with that prompt, so that the same requests fail in any order of arrival.

Faults are given on the command line (``--fault``, for every request), in the header
``x-mock-fault`` (several separated by commas; when a batch is created, also for the batch and its
lines), and by markers in the prompt, ``[[status:500x1]]``.
Markers also set the reply, ``[[reply:any text]]``, the usage, ``[[cached:3]]`` prompt tokens and
``[[reasoning:5]]`` tokens, and a name under which the request is counted, ``[[key:NAME]]``. Each
``[[tool:NAME]]`` or ``[[tool:NAME {"argument": 1}]]`` is a call of a tool, one a turn, before the reply.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_FAULT = re.compile(
    r"(?:(?P<where>[a-z]+)/)?(?P<name>[a-z]+(?:-[a-z]+)?)"
    r"(?::(?P<value>\d+(?:\.\d+)?))?(?:x(?P<times>\d+))?(?:@(?P<share>\d+(?:\.\d+)?))?"
)
_NEEDS_VALUE = frozenset({"status", "retry-after", "delay", "first-byte", "pace", "expire"})
_OF_REQUESTS = _NEEDS_VALUE - {"expire"} | {"quota", "silent", "hangup", "cut", "malformed", "error"}
MODEL_ENDPOINTS = ("chat", "responses", "embeddings")
_KNOWN = {
    **dict.fromkeys(("", *MODEL_ENDPOINTS, "models", "upload", "files", "batches"), _OF_REQUESTS),
    "line": frozenset({"status", "quota", "lost"}),
    "batch": frozenset({"fail", "expire", "stall", "delay"}),
}
_MARKER = re.compile(r"\[\[([^\[\]]+)\]\]")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. It hits the first `times` requests of each prompt (None: all), and of these the part `share`.

    `where`: the requests it is for, "" for all requests to models.
    """

    name: str
    value: float = 0.0
    times: int | None = None
    share: float = 1.0
    where: str = ""

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
    first_byte: float = 0.0
    pace: float = 0.0
    quota: bool = False
    silent: bool = False
    hangup: bool = False
    cut: bool = False
    malformed: bool = False
    error: bool = False
    lost: bool = False
    fail: bool = False
    stall: bool = False
    expire: float | None = None
    reply: str | None = None
    tools: list[str] = field(default_factory=list)
    key: str | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def spoiled_by(self, stream: bool) -> str | None:
        """The fault that keeps the client from reading a whole reply, if one does."""
        names = ("silent", "hangup", "malformed", "error", *(("cut",) if stream else ()))
        return next((name for name in names if getattr(self, name)), None)

    def apply(self, fault: Fault) -> None:
        """Add the effect of a fault."""
        match fault.name:
            case "status":
                self.status = int(fault.value)
            case "retry-after":
                self.retry_after = fault.value
            case "delay":
                self.delay += fault.value
            case "first-byte":
                self.first_byte = fault.value
            case "pace" | "expire" as name:
                setattr(self, name, fault.value)
            case name:
                setattr(self, name, True)


def parse_fault(text: str) -> Fault:
    """Parse a fault. Raises ValueError for a text that is not one.

    >>> parse_fault("status:429x2@0.5")
    Fault(name='status', value=429.0, times=2, share=0.5, where='')
    >>> parse_fault("upload/hangupx1").where
    'upload'
    """
    found = _FAULT.fullmatch(text.strip())
    where = (found and found["where"]) or ""
    known = _KNOWN.get(where, frozenset())
    if (
        found is None
        or found["name"] not in known
        or (found["name"] in _NEEDS_VALUE) is not (found["value"] is not None)
    ):
        names = [f"{name}:N" if name in _NEEDS_VALUE else name for name in sorted(known or _OF_REQUESTS)]
        place = f"{where}/" if where and known else ""
        raise ValueError(
            f"{text!r} is not a fault: use {', '.join(place + name for name in names)}, with [xTIMES][@SHARE]"
        )
    return Fault(
        found["name"],
        float(found["value"] or 0.0),
        int(found["times"]) if found["times"] else None,
        float(found["share"]) if found["share"] else 1.0,
        where,
    )


def parse_faults(header: str | None) -> tuple[Fault, ...]:
    """The faults in a header, parted by commas. Raises ValueError for a text that is not one."""
    return tuple(map(parse_fault, header.split(","))) if header else ()


def effects_of(faults: Iterable[Fault], prompt: str, prompt_key: bytes, nth: int, seed: int) -> Effects:
    """The effects for one request. Raises ValueError for an unknown fault in a marker.

    `nth`: the number of the request with this prompt, from 1.
    """
    effects = Effects()
    asked = list(faults)
    if "[[" in prompt:
        for marker in _MARKER.findall(prompt):
            name, _, value = marker.partition(":")
            match name:
                case "reply" | "key":
                    setattr(effects, name, value)
                case "tool":
                    effects.tools.append(value)
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
