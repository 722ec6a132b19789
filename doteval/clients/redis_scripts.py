"""Runs Lua scripts in Redis, many in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError


class Script:
    """The text of a script, and the digest by which Redis knows it.

    >>> Script("return 1").digest
    'e0e1f9fabfc9d4800c877a703b823ac0578ff8db'
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


ScriptCall = tuple[Script, Sequence[str], Sequence[Any]]
"""A script, its keys and its arguments."""


class Scripts:
    """Runs scripts in the Redis of one client. Used by one thread only."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._loaded: dict[str, Script] = {}

    def run(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run scripts in order, in one round trip. Raises redis.RedisError if one of them could not be run."""
        # All are loaded before any runs: a script loaded in between would run out of order.
        self._load(script for script, _, _ in calls if script.digest not in self._loaded)
        replies = self._evaluate(calls)
        missing = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            # A Redis that was restarted has forgotten all scripts. Those that did run are not run again.
            self._load(list(self._loaded.values()))
            for number, reply in zip(missing, self._evaluate([calls[number] for number in missing]), strict=True):
                replies[number] = reply
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply
        return replies

    def _load(self, scripts: Iterable[Script]) -> None:
        for script in {script.digest: script for script in scripts}.values():
            self._client.script_load(script.text)
            self._loaded[script.digest] = script

    def _evaluate(self, calls: Sequence[ScriptCall]) -> list[Any]:
        with self._client.pipeline(transaction=False) as pipeline:
            for script, keys, arguments in calls:
                pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
            return list(pipeline.execute(raise_on_error=False))
