"""What the clients of this process share: cache, rate limits and prices, each made when first needed."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.reply_cache import ReplyCache, Storage
from doteval.clients.cache.sqlite import SQLiteStorage
from doteval.clients.rate_limits.limiter import RateLimiter
from doteval.clients.rate_limits.rate_limit import LocalRateLimits
from doteval.clients.rate_limits.redis import RedisRateLimits
from doteval.core.broker_url import Broker
from doteval.core.client_config import DEFAULT_CACHE_PATH, ClientConfig, client_config
from doteval.core.prices import PriceTable

_lock = threading.Lock()
_caches: dict[ClientConfig, ReplyCache] = {}
_limiters: dict[str | None, RateLimiter] = {}
_prices: dict[str, PriceTable] = {}


def shared_cache() -> ReplyCache:
    """The cache of the current client config."""
    config = client_config()
    with _lock:
        if config not in _caches:
            _caches[config] = ReplyCache(_storage(config))
        return _caches[config]


def shared_limiter() -> RateLimiter:
    """The rate limiter of the current client config: shared by all processes through a Redis, else of this process."""
    broker = client_config().broker
    if broker is not None and not Broker(broker).holds_shared_state:
        broker = None
    with _lock:
        if broker not in _limiters:
            limits = LocalRateLimits() if broker is None else RedisRateLimits(broker)
            _limiters[broker] = RateLimiter(limits, shared=broker is not None)
        return _limiters[broker]


def shared_prices() -> PriceTable:
    """The price table of the current client config, empty if it names none. Raises UsageError if it cannot be read."""
    path = client_config().prices
    if path is None:
        return PriceTable()
    with _lock:
        if path not in _prices:
            _prices[path] = PriceTable.read(Path(path))
        return _prices[path]


def _storage(config: ClientConfig) -> Storage:
    seconds, most_bytes = config.cache_seconds, config.cache_bytes
    if config.cache_path is None and config.broker is not None and Broker(config.broker).holds_shared_state:
        return RedisStorage(config.broker, seconds=seconds, most_bytes=most_bytes)
    path = Path(config.cache_path or DEFAULT_CACHE_PATH)
    return SQLiteStorage(path, seconds=seconds, most_bytes=most_bytes)


def close_shared() -> None:
    """Release leases and close connections. The functions above make new ones afterwards."""
    with _lock:
        closing: list[ReplyCache | RateLimiter] = [*_caches.values(), *_limiters.values()]
        _forget()
    for each in closing:
        each.close()


def _forget() -> None:
    _caches.clear()
    _limiters.clear()
    _prices.clear()


atexit.register(close_shared)
# Threads and connections stay with the parent.
os.register_at_fork(after_in_child=_forget)
