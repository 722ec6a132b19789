"""The reply cache in both storages: expiry, size, leases, and storage failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
import redis

from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.reply_cache import ReplyCache, StoredReply
from doteval.clients.cache.sqlite import SQLiteStorage
from doteval.core.liveness import LEASE_SECONDS
from doteval.errors import ResourceError

ROOT = Path(__file__).parents[4]
Open = Callable[..., ReplyCache]


def reply(text: str = "hello") -> StoredReply:
    return StoredReply("application/json", text.encode())


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture(params=["sqlite", "redis"])
def expression(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The Python expression with which any process opens the storage."""
    if request.param == "redis":
        return f"RedisStorage({request.getfixturevalue('redis_url')!r}, **given)"
    return f"SQLiteStorage(Path({str(tmp_path / 'deep' / 'cache.db')!r}), **given)"


@pytest.fixture
def open_cache(expression: str) -> Iterator[Open]:
    opened: list[ReplyCache] = []

    def open_one(**settings: Any) -> ReplyCache:
        given = {"seconds": 60.0, "most_bytes": 1_000_000, **settings}
        storage = eval(expression, {**globals(), "given": given})
        opened.append(ReplyCache(storage))
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()


def ask(cache: ReplyCache, number: int) -> StoredReply | None:
    return cache.ask(key(number)).result(60)


def test_a_stored_reply_is_found_by_every_process(open_cache: Open) -> None:
    one, other = open_cache(), open_cache()
    assert ask(one, 1) is None
    one.put(key(1), StoredReply("text/event-stream", b"\x00\xff data"))
    assert ask(one, 1) == ask(other, 1) == StoredReply("text/event-stream", b"\x00\xff data")
    assert ask(other, 2) is None


def test_one_caller_of_two_processes_makes_the_request(open_cache: Open) -> None:
    caches = open_cache(), open_cache()
    futures = [cache.ask(key(1)) for _ in range(50) for cache in caches]
    (first,), waiting = wait(futures, timeout=60, return_when="FIRST_COMPLETED")
    assert first.result() is None
    assert not wait(waiting, timeout=0.5).done
    caches[futures.index(first) % 2].put(key(1), reply())
    assert {future.result(60) for future in waiting} == {reply()}


def test_a_released_lease_goes_to_the_next_caller(open_cache: Open) -> None:
    caches = open_cache(), open_cache()
    futures = [cache.ask(key(1)) for _ in range(3) for cache in caches]
    asked = 0
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=60, return_when="FIRST_COMPLETED")
        assert len(done) == 1
        asked += 1
        caches[futures.index(done.pop()) % 2].release(key(1))
    assert asked == 6


def test_a_cancelled_caller_passes_its_lease_on(open_cache: Open) -> None:
    cache = open_cache()
    first, second, third = (cache.ask(key(1)) for _ in range(3))
    assert first.result(60) is None
    cache.cancel(key(1), second)
    cache.cancel(key(1), first)
    assert third.result(60) is None


HOLD = """
import sys, time
from pathlib import Path
from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.sqlite import SQLiteStorage
from doteval.core.liveness import LEASE_SECONDS
from doteval.clients.cache.reply_cache import ReplyCache
given = {{"seconds": 60.0, "most_bytes": 1_000_000}}
cache = ReplyCache({expression})
assert cache.ask((1).to_bytes(32, "big")).result() is None
print("held", flush=True)
time.sleep(600)
"""


def test_the_lease_of_a_dead_process_expires_within_seconds_and_of_a_live_one_never(
    open_cache: Open, expression: str
) -> None:
    program = [sys.executable, "-c", HOLD.format(expression=expression)]
    holder = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        future = open_cache().ask(key(1))
        # Longer than a lease that nobody renews.
        assert wait([future], timeout=LEASE_SECONDS + 1.5).not_done
        killed = time.monotonic()
        os.kill(holder.pid, signal.SIGKILL)
        assert future.result(60) is None
        assert time.monotonic() - killed < 3 * LEASE_SECONDS
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()


def test_replies_expire(open_cache: Open) -> None:
    # Long enough that a busy machine finds the reply before.
    cache = open_cache(seconds=2.0)
    assert ask(cache, 1) is None
    put = time.monotonic()
    cache.put(key(1), reply())
    assert ask(cache, 1) == reply()
    while ask(cache, 1) is not None:
        assert time.monotonic() < put + 60
    assert time.monotonic() >= put + 1.9


def test_the_least_recently_used_replies_are_removed_first(open_cache: Open) -> None:
    cache = open_cache(most_bytes=12_000)
    for number in range(10):
        assert ask(cache, number) is None
        cache.put(key(number), reply("x" * 900))
        assert ask(cache, 0) == reply("x" * 900)
    for number in range(10, 14):
        assert ask(cache, number) is None
        cache.put(key(number), reply("x" * 900))
    found = []
    for number in range(14):
        if ask(cache, number) is None:
            cache.release(key(number))
        else:
            found.append(number)
    assert 8 <= len(found) <= 13
    assert found[0] == 0
    assert found[1:] == list(range(14 - len(found) + 1, 14))


def test_a_reply_larger_than_the_cache_is_not_stored(open_cache: Open) -> None:
    cache = open_cache(most_bytes=5000)
    for number, size in ((1, 100), (2, 6000)):
        assert ask(cache, number) is None
        cache.put(key(number), reply("x" * size))
    assert ask(cache, 1) == reply("x" * 100)
    assert ask(cache, 2) is None


def test_a_reply_stored_again_counts_once(open_cache: Open) -> None:
    cache = open_cache(most_bytes=3000)
    assert ask(cache, 1) is None
    cache.put(key(1), reply("1" * 500))
    for _ in range(20):
        cache.put(key(2), reply("2" * 500))
    assert ask(cache, 2) == reply("2" * 500)
    assert ask(cache, 1) == reply("1" * 500)


def test_refreshing_requests_each_key_once(open_cache: Open) -> None:
    caches = open_cache(), open_cache()
    assert ask(caches[0], 1) is None
    caches[0].put(key(1), reply("old"))
    assert ask(caches[1], 1) == reply("old")
    since = time.time() + 0.001
    time.sleep(0.002)  # until `since` is past
    assert caches[1].ask(key(1), since).result(60) is None
    # From here on, callers with `since` wait for the new reply; the others get the old one.
    assert ask(caches[0], 1) == reply("old")
    newest = caches[0].ask(key(1), since)
    caches[1].put(key(1), reply("new"))
    assert newest.result(60) == reply("new")
    for cache in caches:
        assert ask(cache, 1) == cache.ask(key(1), since).result(60) == reply("new")


def test_many_threads_make_one_request_for_each_key(open_cache: Open) -> None:
    caches = open_cache(), open_cache()
    made: list[int] = []

    def work(cache: ReplyCache) -> None:
        for number in range(100):
            if ask(cache, number) is None:
                made.append(number)
                cache.put(key(number), reply(str(number)))
            assert ask(cache, number) == reply(str(number))

    threads = [threading.Thread(target=work, args=(caches[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(100))


def test_a_closed_cache_releases_its_leases(open_cache: Open) -> None:
    one, other = open_cache(), open_cache()
    assert ask(one, 1) is None
    future = other.ask(key(1))
    one.close()
    assert future.result(LEASE_SECONDS / 2) is None
    with pytest.raises(ResourceError, match="closed"):
        ask(one, 2)
    one.close()


def test_an_unreachable_storage_raises_without_the_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for storage in (
        RedisStorage("redis://:hunter2@127.0.0.1:1/0", seconds=1, most_bytes=1),
        SQLiteStorage(tmp_path / "file" / "cache.db", seconds=1, most_bytes=1),
    ):
        cache = ReplyCache(storage)
        future: Future[StoredReply | None] = cache.ask(key(1))
        with pytest.raises(ResourceError, match="cannot be used") as raised:
            future.result(60)
        assert "hunter2" not in str(raised.value)
        cache.close()


def test_in_redis_everything_expires_or_is_bounded(redis_url: str) -> None:
    cache = ReplyCache(RedisStorage(redis_url, seconds=60, most_bytes=10_000))
    for number in range(100):
        assert ask(cache, number) is None
        cache.put(key(number), reply("x" * 400))
    ask(cache, 1000)
    with redis.Redis.from_url(redis_url) as client:
        names = [name.decode() for name in client.keys("*")]
        assert all(name.startswith("doteval:cache:") for name in names)
        assert sum(name.startswith("doteval:cache:reply:") for name in names) <= 10_000 // 400
        assert client.zcard("doteval:cache:used") == client.hlen("doteval:cache:sizes") <= 25
        assert int(client.get("doteval:cache:total") or 0) <= 10_000  # type: ignore[arg-type]
        assert all(client.pttl(name) > 0 for name in names if ":reply:" in name or ":lease:" in name)
    cache.close()


def test_a_flushed_redis_can_be_used_on(redis_url: str) -> None:
    cache = ReplyCache(RedisStorage(redis_url, seconds=60, most_bytes=10_000))
    assert ask(cache, 1) is None
    cache.put(key(1), reply())
    # Wait until it is stored: a reply stored during the flush might survive it.
    assert ask(cache, 1) == reply()
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        client.script_flush()
    assert ask(cache, 1) is None
    cache.put(key(1), reply())
    assert ask(cache, 1) == reply()
    cache.close()
