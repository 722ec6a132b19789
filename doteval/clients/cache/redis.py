"""Replies and leases in Redis, for worker processes on any machine.

The broker's Redis must not evict keys, so this module bounds the cache itself: two sorted sets order the replies by
their last use and by their expiry, a hash holds their sizes.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import redis

from doteval.clients.cache.reply_cache import Answer, Ask, Drop, Operation, Put, Release, Renew, StoredReply, stored_key
from doteval.clients.redis_connection import key_prefix, redis_client
from doteval.clients.redis_scripts import Script, Scripts
from doteval.core.broker_url import Broker
from doteval.core.liveness import LEASE_SECONDS
from doteval.core.redaction import without_arguments
from doteval.errors import ResourceError

_PREFIX = "doteval:cache"

# KEYS: used, ends, sizes, total. ARGV begins with prefix, key, owner.
_NOW = "local t = redis.call('TIME'); local now = t[1] + t[2] / 1000000; "
_DROP_FUNCTION = """
    local function drop(old)
        redis.call('DEL', ARGV[1] .. ':reply:' .. old)
        local freed = redis.call('HGET', KEYS[3], old)
        if freed then redis.call('DECRBY', KEYS[4], freed) end
        redis.call('HDEL', KEYS[3], old)
        redis.call('ZREM', KEYS[1], old)
        redis.call('ZREM', KEYS[2], old)
    end
"""

_ASK = Script(
    _NOW
    + """
    local name = ARGV[1] .. ':reply:' .. ARGV[2]
    local made = redis.call('HGET', name, 'made_at')
    if made and tonumber(made) >= tonumber(ARGV[5]) then
        redis.call('ZADD', KEYS[1], 'XX', now, ARGV[2])
        return redis.call('HMGET', name, 'type', 'content')
    end
    local lease = ARGV[1] .. ':lease:' .. ARGV[2]
    if redis.call('SET', lease, ARGV[3], 'NX', 'PX', ARGV[4]) then return 1 end
    if redis.call('GET', lease) == ARGV[3] then
        redis.call('PEXPIRE', lease, ARGV[4])
        return 1
    end
    return 0
    """
)

_RELEASE = Script(
    """
    local lease = ARGV[1] .. ':lease:' .. ARGV[2]
    if redis.call('GET', lease) == ARGV[3] then redis.call('DEL', lease) end
    return 0
    """
)

_DROP = Script(_DROP_FUNCTION + "drop(ARGV[2]); return 0")

_RENEW = Script(
    """
    local lease = ARGV[1] .. ':lease:' .. ARGV[2]
    if redis.call('GET', lease) == ARGV[3] then redis.call('PEXPIRE', lease, ARGV[4]) end
    return 0
    """
)

# ARGV: prefix, key, owner, milliseconds to keep, most bytes, content type, content
_PUT = Script(
    _NOW
    + _DROP_FUNCTION
    + """
    local prefix, key = ARGV[1], ARGV[2]
    local keep, most, size = tonumber(ARGV[4]), tonumber(ARGV[5]), #ARGV[7] + 200
    drop(key)
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)) do drop(old) end
    if size <= most then
        local name = prefix .. ':reply:' .. key
        redis.call('HSET', name, 'made_at', string.format('%.6f', now), 'type', ARGV[6], 'content', ARGV[7])
        redis.call('PEXPIRE', name, keep)
        redis.call('ZADD', KEYS[1], now, key)
        redis.call('ZADD', KEYS[2], now + keep / 1000, key)
        redis.call('HSET', KEYS[3], key, size)
        local total = redis.call('INCRBY', KEYS[4], size)
        while total > most do
            local oldest = redis.call('ZRANGE', KEYS[1], 0, 0)
            if not oldest[1] then redis.call('SET', KEYS[4], 0); break end
            drop(oldest[1])
            total = tonumber(redis.call('GET', KEYS[4]))
        end
    end
    local lease = prefix .. ':lease:' .. key
    if redis.call('GET', lease) == ARGV[3] then redis.call('DEL', lease) end
    return 0
    """
)


class RedisStorage:
    """A `Storage` in the Redis of the broker URL, under the prefix ``doteval:cache``.

    Replies are kept for `seconds`, and at most `most_bytes` of them: the least recently used are removed first.
    """

    def __init__(self, broker: str, *, seconds: float, most_bytes: int, prefix: str = _PREFIX) -> None:
        self._shown = str(Broker(broker))
        self._client = redis_client(broker)
        self._scripts = Scripts(self._client)
        self._keep = max(1, round(seconds * 1000))
        self._most_bytes = most_bytes
        self._prefix = prefix = key_prefix(broker) + prefix
        self._keys = [f"{prefix}:{name}" for name in ("used", "ends", "sizes", "total")]
        self._owner = secrets.token_hex(8)
        self._secret = b""

    def perform(self, operations: Sequence[Operation]) -> list[Answer]:
        """See `Storage.perform`."""
        try:
            self._secret = self._secret or self._shared_secret()
            replies = self._scripts.run([self._call(operation) for operation in operations])
        except redis.RedisError as error:
            raise ResourceError(
                f"the cache in {self._shown} cannot be used: {type(error).__name__}: {without_arguments(str(error))}",
                remedy="Check that Redis runs, or use --no-cache.",
            ) from error
        return [
            _answer(reply) if isinstance(operation, Ask) else None
            for operation, reply in zip(operations, replies, strict=True)
        ]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _shared_secret(self) -> bytes:
        name = f"{self._prefix}:secret"
        both = self._client.pipeline()
        both.set(name, secrets.token_bytes(32), nx=True)
        both.get(name)
        secret: bytes = both.execute()[1]
        return secret

    def _call(self, operation: Operation) -> tuple[Script, list[str], list[Any]]:
        lease = round(LEASE_SECONDS * 1000)
        head = [self._prefix, stored_key(operation.key, self._secret).hex(), self._owner]
        match operation:
            case Ask(_, since):
                return _ASK, self._keys, [*head, lease, f"{since:.6f}"]
            case Put(_, reply):
                arguments = [*head, self._keep, self._most_bytes, reply.content_type, reply.content]
                return _PUT, self._keys, arguments
            case Release():
                return _RELEASE, self._keys, head
            case Drop():
                return _DROP, self._keys, head
            case Renew():
                return _RENEW, self._keys, [*head, lease]


def _answer(reply: Any) -> Answer:
    if isinstance(reply, list):
        content_type, content = reply
        return StoredReply(content_type.decode(), content)
    return bool(reply)
