"""The reply cache and the rate limits are shared through a Redis whose connections go silent, or that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from doteval.broker.publisher import Publisher
from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.reply_cache import ReplyCache, StoredReply
from doteval.clients.rate_limits.limiter import Permit, RateLimiter, RequestOutcome, UserLimits
from doteval.clients.rate_limits.redis import RedisRateLimits
from doteval.clients.redis_connection import redis_client, redis_time
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError, ResourceError
from tests.support.fault_services import RedisServer
from tests.support.silent_connections import SilentProxy

KEY = b"k" * 32
REPLY = StoredReply("application/json", b"hello")


@pytest.fixture
def proxy(redis_url: str) -> Iterator[SilentProxy]:
    with SilentProxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield proxy


@pytest.fixture
def url(proxy: SilentProxy) -> str:
    """A Redis that counts as lost after a second and a half."""
    return f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=1.5"


def test_the_cache_answers_on_a_fresh_connection(
    url: str, proxy: SilentProxy, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ReplyCache(RedisStorage(url, seconds=60, most_bytes=1_000_000))
    try:
        for round_ in range(3):
            key = KEY[:-1] + bytes([round_])
            assert cache.ask(key).result(60) is None
            assert proxy.silence() == 1
            cache.put(key, REPLY)
            assert cache.ask(key).result(60) == REPLY
    finally:
        cache.close()
    assert caplog.messages == []


def test_the_rate_limit_is_asked_on_a_fresh_connection(
    url: str, proxy: SilentProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests wait for the answer; they are not sent without a limit."""
    limiter = RateLimiter(RedisRateLimits(url), shared=True)
    target = limiter.target("http://localhost m", UserLimits(requests_per_minute=6_000_000))
    try:
        for _ in range(3):
            waiting = limiter.request_permit(target, "eval_a", tokens=1)
            assert isinstance(waiting, Future)
            permit = waiting.result(60)
            # It was counted by the limit that all processes share.
            assert permit.stamp >= 0
            limiter.finish(permit, RequestOutcome(200))
            assert proxy.silence() == 1
    finally:
        limiter.close()
    assert caplog.messages == []


def test_a_redis_that_hangs_is_given_up(
    tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything that asks it ends with an error, and rows go on without the cache and the limits."""
    server = RedisServer(tmp_path_factory.mktemp("redis") / "data")
    server.start()
    url = f"{server.url}?socket_timeout=1.5"
    cache = ReplyCache(RedisStorage(url, seconds=60, most_bytes=1_000_000))
    limiter = RateLimiter(RedisRateLimits(url), shared=True)
    target = limiter.target("http://localhost m", UserLimits(requests_per_minute=6_000_000))
    publisher = Publisher(Broker(url), "q")
    try:
        assert cache.ask(KEY).result(60) is None
        assert publisher.queued() == 0
        server.pause()
        with pytest.raises(ResourceError, match="cannot be used: TimeoutError"):
            cache.ask(KEY[::-1] + b"2").result(60)
        waiting = limiter.request_permit(target, "eval_a", tokens=1)
        permit: Permit = waiting.result(60) if isinstance(waiting, Future) else waiting
        limiter.finish(permit, RequestOutcome(200))
        with pytest.raises(BrokerError, match="does not answer: nothing came for"):
            publisher.queued()
        with pytest.raises(ResourceError, match="does not answer: TimeoutError"):
            redis_time(url)
    finally:
        server.resume()
        cache.close()
        limiter.close()
        publisher.close()
        server.stop()
    assert [message for message in caplog.messages if "requests are sent without them" in message]


@pytest.mark.parametrize("given", ["", "?socket_timeout=60", "?retry_on_timeout=true"])
def test_a_row_never_waits_long_for_shared_state(given: str) -> None:
    """Ten seconds at most: five, and five more on a fresh connection."""
    options = redis_client(f"redis://localhost/0{given}").connection_pool.connection_kwargs
    assert options["socket_timeout"] == 5.0
    assert options["retry"].get_retries() == 1
