"""Lua scripts in Redis, many in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError


class Script:
    """The text of a script, and the digest that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


Call = tuple[Script, Sequence[str], Sequence[Any]]
"""A script, its keys and its arguments."""


class Scripts:
    """Runs scripts in the Redis of one client. Belongs to one thread."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._loaded: dict[str, Script] = {}

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts in order, in one round trip. Raises redis.RedisError if one of them could not be run."""
        # Before anything runs: to load one in between would change the order.
        self._load(script for script, _, _ in calls if script.digest not in self._loaded)
        replies = self._attempt(calls)
        lost = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if lost:
            # A Redis that was restarted has forgotten all of them. What did run is not run again.
            self._load(list(self._loaded.values()))
            for number, reply in zip(lost, self._attempt([calls[number] for number in lost]), strict=True):
                replies[number] = reply
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply
        return replies

    def _load(self, scripts: Iterable[Script]) -> None:
        for script in {script.digest: script for script in scripts}.values():
            self._client.script_load(script.text)
            self._loaded[script.digest] = script

    def _attempt(self, calls: Sequence[Call]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for script, keys, arguments in calls:
                pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
            return list(pipeline.execute(raise_on_error=False))
