"""Lua scripts in Redis, many in one round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError


class Script:
    """The text of a script, and the digest that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


Call = tuple[Script, Sequence[str], Sequence[Any]]
"""A script, its keys and its arguments."""


def run_scripts(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    """Run scripts in order, in one round trip. Raises redis.RedisError if one of them could not be run."""
    replies = _attempt(client, calls)
    if any(isinstance(reply, NoScriptError) for reply in replies):
        # A Redis that was restarted has forgotten them. What did run is not run again.
        for script in {call[0].digest: call[0] for call in calls}.values():
            client.script_load(script.text)
        again = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        for number, reply in zip(again, _attempt(client, [calls[number] for number in again]), strict=True):
            replies[number] = reply
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _attempt(client: redis.Redis, calls: Sequence[Call]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for script, keys, arguments in calls:
            pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
        return list(pipeline.execute(raise_on_error=False))
