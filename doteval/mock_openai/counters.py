"""What the server counts. A finished request leaves the digest of its prompt here, and no more."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

from doteval.mock_openai.prompts import Tokens

_NAMES = ("requests", "replies", "rejected", "rate_limited", "hangups", "malformed", "connections")
_TOKEN_NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
_LAST_CHARACTERS = 4


class Counters:
    """Counts since the start or the last reset; `MockOpenAI.stats` describes them."""

    def __init__(self) -> None:
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Set everything to zero but the requests in flight."""
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._prompts: Counter[bytes] = Counter()
        self._others: Counter[bytes] = Counter()
        self._paid: Counter[bytes] = Counter()
        self._keys: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._api_keys: Counter[str] = Counter()
        self._tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._batch: Counter[str] = Counter()
        self._in_flight_max = self._in_flight
        self._first_at: float | None = None
        self._last_at = 0.0

    def begin(self, kind: str, authorization: str | None) -> None:
        """Count a request that came in."""
        self._kinds[kind]["requests"] += 1
        self._api_keys[authorization or ""] += 1

    def begin_model_request(self) -> None:
        """Count a request to a model as in flight."""
        self.counts["requests"] += 1
        if self._first_at is None:
            self._first_at = time.monotonic()
        self._in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self._in_flight)

    def end_model_request(self) -> None:
        """Count it as out of flight."""
        self._in_flight -= 1
        self._last_at = time.monotonic()

    def nth(self, key: bytes) -> int:
        """The number of this request among those with the same prompt, from 1."""
        self._prompts[key] += 1
        return self._prompts[key]

    def nth_other(self, key: bytes) -> int:
        """The number of this request, line or batch among those with the same digest, from 1."""
        self._others[key] += 1
        return self._others[key]

    def asked(self, name: str | None) -> None:
        """Count a request under the name that its prompt gives it."""
        if name is not None:
            self._keys[name]["requests"] += 1

    def reply(self, kind: str, model: str, tokens: Tokens, key: bytes, name: str | None, reported: bool = True) -> None:
        """Count a complete reply of a model, and its tokens if it reports them."""
        self.counts["replies"] += 1
        self._kinds[kind]["replies"] += 1
        counts = self._tokens[model]
        counts["replies"] += 1
        if reported:
            _add(counts, tokens)
        self._pay(key, name)

    def spoil(self, fault: str) -> None:
        """Count a reply that a fault made unreadable."""
        self.faults[fault] += 1
        if fault in ("hangup", "malformed"):
            self.counts["hangups" if fault == "hangup" else fault] += 1

    def line(self, key: bytes, name: str | None, tokens: Tokens | None) -> None:
        """Count a request within a batch; `tokens` is None for one that failed."""
        self._batch["requests"] += 1
        self.asked(name)
        if tokens is None:
            self._batch["rejected"] += 1
            return
        self._batch["replies"] += 1
        _add(self._batch, tokens)
        self._pay(key, name)

    def _pay(self, key: bytes, name: str | None) -> None:
        self._paid[key] += 1
        if name is not None:
            self._keys[name]["replies"] += 1

    def stats(self) -> dict[str, Any]:
        """All counts, for JSON."""
        total: Counter[str] = Counter()
        for counts in self._tokens.values():
            total.update(counts)
        return {
            **{name: self.counts[name] for name in _NAMES},
            **{name: total[name] for name in _TOKEN_NAMES},
            "distinct_prompts": len(self._prompts),
            "repeated_replies": sum(self._paid.values()) - len(self._paid),
            "in_flight": self._in_flight,
            "in_flight_max": self._in_flight_max,
            "seconds": 0.0 if self._first_at is None else max(0.0, self._last_at - self._first_at),
            "models": {
                model: {name: counts[name] for name in ("replies", *_TOKEN_NAMES)}
                for model, counts in self._tokens.items()
            },
            "kinds": {
                kind: {name: counts[name] for name in ("requests", "replies")} for kind, counts in self._kinds.items()
            },
            "batch": {name: self._batch[name] for name in ("requests", "replies", "rejected", *_TOKEN_NAMES)},
            "keys": {
                key: {name: counts[name] for name in ("requests", "replies")} for key, counts in self._keys.items()
            },
            "api_keys": _masked(self._api_keys),
            "faults": dict(self.faults),
        }


def _add(counts: Counter[str], tokens: Tokens) -> None:
    counts["prompt_tokens"] += tokens.prompt
    counts["completion_tokens"] += tokens.completion
    counts["cached_tokens"] += tokens.cached
    counts["reasoning_tokens"] += tokens.reasoning


def _masked(counts: Counter[str]) -> dict[str, int]:
    """By the end of the key: somebody may have sent a real one."""
    masked: Counter[str] = Counter()
    for authorization, count in counts.items():
        key = authorization.removeprefix("Bearer ")
        masked["..." + key[-_LAST_CHARACTERS:] if key else ""] += count
    return dict(masked)
