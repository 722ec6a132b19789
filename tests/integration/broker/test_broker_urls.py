"""What a broker URL may say works: parameters, a key prefix, a user with few rights, Sentinels with a failover."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from doteval.broker.embedded_redis import find_redis_binary
from doteval.broker.inspection import inspect_redis
from doteval.broker.messages import RowTask
from doteval.broker.publisher import Publisher
from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.reply_cache import Ask
from doteval.clients.rate_limits.redis import RedisRateLimits
from doteval.clients.redis_connection import redis_client, redis_time
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError
from tests.support.project import wait_until
from tests.support.redis import free_port

WAIT_SECONDS = 60
MESSAGE = {"user_rates": [0, 0], "observed": [], "asks": []}


def publish(publisher: Publisher) -> None:
    publisher.publish([RowTask("uid", 0, 9)], experiment="x", evaluation="eval_a")


@pytest.mark.parametrize(
    "more",
    ["?socket_timeout=5&health_check_interval=10", "?client_name=me&retry_on_timeout=true", "?max_connections=9"],
)
def test_parameters_in_the_url(redis_url: str, more: str) -> None:
    broker = Broker(redis_url + more)
    with contextlib.closing(Publisher(broker, "q")) as publisher:
        publish(publisher)
        assert publisher.queued() == 1
    assert inspect_redis(broker, "q") is not None
    assert abs(redis_time(broker.url) - time.time()) < WAIT_SECONDS


def test_a_database_and_another_name_of_the_scheme(redis_url: str) -> None:
    given = redis_url.replace("redis://", "valkey://") + "?db=3"
    with contextlib.closing(Publisher(Broker(given), "q")) as publisher:
        publish(publisher)
    with redis.Redis.from_url(redis_url.replace("/0", "/3")) as client:
        assert client.llen("q") == 1
        client.flushdb()


def test_a_user_who_may_only_use_keys_with_a_prefix(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as admin:
        # As docs/cli.md says.
        rules = ["on", ">pw", "resetkeys", "~team:*", "resetchannels", "&team:*"]
        rules += [
            "+@all",
            "-@dangerous",
            "-@admin",
            "-client",
            "-config",
            "-info",
            "+client|setinfo",
            "+client|unblock",
        ]
        admin.execute_command("ACL", "SETUSER", "eval", *rules)
        try:
            broker = Broker(redis_url.replace("redis://", "redis://eval:pw@") + "?global_keyprefix=team:")
            with contextlib.closing(Publisher(broker, "q")) as publisher:
                publish(publisher)
                publisher.renew(["a lease"])
                assert publisher.queued() == 1
            facts = inspect_redis(broker, "q")
            assert facts is not None
            assert (facts.maxmemory_policy, facts.appendonly) == (None, None)
            storage = RedisStorage(broker.url, seconds=60, most_bytes=1000)
            assert storage.perform([Ask(b"key")]) == [True]
            with contextlib.closing(RedisRateLimits(broker.url)) as limits:
                assert len(limits.step([("model", MESSAGE)])) == 1
            keys = {key.decode() for key in admin.keys("*")}
            assert {"team:q"} < keys
            assert all(key.startswith("team:") for key in keys)
        finally:
            admin.execute_command("ACL", "DELUSER", "eval")


@dataclass
class Sentinels:
    """The ports of a replica and of a Sentinel, and the process of the master."""

    replica: int
    watcher: int
    master_process: subprocess.Popen[bytes]


@pytest.fixture
def sentinels(tmp_path: Path, redis_service: object) -> Iterator[Sentinels]:
    """A Redis, its replica and a Sentinel, which may make the replica the master alone."""
    binary = str(find_redis_binary())
    first, second, watcher = (free_port() for _ in range(3))
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {watcher}\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {first} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
    )
    usual = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    commands = [
        [binary, "--port", str(first), *usual],
        [binary, "--port", str(second), *usual, "--replicaof", "127.0.0.1", str(first)],
        [binary, str(config), "--sentinel"],
    ]
    with contextlib.ExitStack() as stack:
        processes = []
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        wait_until(lambda: answers(second) and redis_at(second).info("replication")["master_link_status"] == "up")
        wait_until(lambda: answers(watcher) and redis_at(watcher).execute_command("SENTINEL", "REPLICAS", "main"))
        yield Sentinels(second, watcher, processes[0])


def answers(port: int) -> bool:
    try:
        return bool(redis_at(port).ping())
    except redis.ConnectionError:
        return False


def redis_at(port: int) -> redis.Redis:
    return redis.Redis(host="127.0.0.1", port=port, decode_responses=True)


def connecting_anew(action: Callable[[], object]) -> None:
    """Do an action once the Sentinel has found the new master."""

    def succeeds() -> bool:
        try:
            action()
        except (BrokerError, redis.RedisError):
            return False
        return True

    wait_until(succeeds, seconds=WAIT_SECONDS, what="a connection to the new master")


def test_sentinels_find_the_redis_also_after_a_failover(sentinels: Sentinels) -> None:
    broker = Broker(f"sentinel://127.0.0.1:{sentinels.watcher}/2?master_name=main&socket_timeout=5")
    with contextlib.closing(Publisher(broker, "q")) as publisher:
        publish(publisher)
        assert publisher.queued() == 1
        facts = inspect_redis(broker, "q")
        assert facts is not None
        assert facts.maxmemory_policy == "noeviction"
        client = redis_client(broker.url)
        client.set("state", "kept")
        assert client.llen("q") == 1
        with redis_at(sentinels.replica) as replica:
            replica.select(2)
            wait_until(lambda: replica.get("state"), what="a replica with all data")
        sentinels.master_process.kill()
        connecting_anew(lambda: publish(publisher))
        connecting_anew(publisher.queued)
        assert publisher.queued() == 2
        connecting_anew(lambda: client.get("state"))
        assert client.get("state") == b"kept"
        with redis_at(sentinels.replica) as replica:
            assert replica.info("replication")["role"] == "master"
