"""What the clients of this process share, made when the first one needs it: cache, limits, prices."""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path

from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.reply_cache import ReplyCache, Storage
from doteval.clients.cache.sqlite import SQLiteStorage
from doteval.clients.rate_limits.limiter import Limiter
from doteval.clients.rate_limits.redis import RedisBudgets
from doteval.clients.rate_limits.token_bucket import LocalBudgets
from doteval.core.broker_url import Broker
from doteval.core.client_config import DEFAULT_CACHE_PATH, ClientConfig, client_config
from doteval.core.prices import PriceTable

_lock = threading.Lock()
_caches: dict[ClientConfig, ReplyCache] = {}
_limiters: dict[str | None, Limiter] = {}
_prices: dict[str, PriceTable] = {}


def shared_cache() -> ReplyCache:
    """The cache where `doteval.core.client_config.client_config()` says."""
    settings = client_config()
    with _lock:
        if settings not in _caches:
            _caches[settings] = ReplyCache(_storage(settings))
        return _caches[settings]


def shared_limiter() -> Limiter:
    """The limits: one budget for all processes where there is a Redis, else for this one."""
    broker = client_config().broker
    place = broker if broker is not None and Broker(broker).holds_shared_state else None
    with _lock:
        if place not in _limiters:
            budgets = LocalBudgets() if place is None else RedisBudgets(place)
            _limiters[place] = Limiter(budgets, shared=place is not None)
        return _limiters[place]


def shared_prices() -> PriceTable:
    """The price table of the settings; an empty one if they name none. Raises UsageError if it cannot be read."""
    path = client_config().prices
    if path is None:
        return PriceTable()
    with _lock:
        if path not in _prices:
            _prices[path] = PriceTable.read(Path(path))
        return _prices[path]


def _storage(settings: ClientConfig) -> Storage:
    seconds, most_bytes = settings.cache_seconds, settings.cache_bytes
    if settings.cache_path is None and settings.broker is not None and Broker(settings.broker).holds_shared_state:
        return RedisStorage(settings.broker, seconds=seconds, most_bytes=most_bytes)
    path = Path(settings.cache_path or DEFAULT_CACHE_PATH)
    return SQLiteStorage(path, seconds=seconds, most_bytes=most_bytes)


def close_shared() -> None:
    """Give leases back and close connections. What is asked for afterwards is made anew."""
    with _lock:
        closing: list[ReplyCache | Limiter] = [*_caches.values(), *_limiters.values()]
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
