"""What a broker URL may say works: parameters, a key prefix, a user with few rights, Sentinels with a failover."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from doteval.broker.embedded_redis import find_redis_binary
from doteval.broker.flower_pages import QueueLengths
from doteval.broker.inspection import inspect_redis
from doteval.broker.messages import RowTask
from doteval.broker.publisher import Publisher
from doteval.clients.cache.redis import RedisStorage
from doteval.clients.cache.reply_cache import Ask
from doteval.clients.rate_limits.redis import RedisRateLimits
from doteval.clients.redis_connection import redis_client, redis_time
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError
from tests.support.ports import free_port
from tests.support.project import wait_until
from tests.support.troubleshooting import assert_shown

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
                publisher.connect()
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


def test_flowers_pages_read_queues_whichever_url_answers(redis_url: str) -> None:
    broker = Broker(f"redis://127.0.0.1:{free_port()}/0;{redis_url}?global_keyprefix=team:")
    with contextlib.closing(Publisher(broker, "q")) as publisher:
        publish(publisher)
        lengths = asyncio.run(QueueLengths(publisher).queues(["q", "q~1"]))
    assert lengths == [{"name": "q", "messages": 1}, {"name": "q~1", "messages": 0}]


@contextlib.contextmanager
def user_with(redis_url: str, *rules: str) -> Iterator[str]:
    """The URL for a user with these rights."""
    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "eval", "reset", "on", ">pw", "~*", "&*", "+@all", *rules)
        try:
            yield redis_url.replace("redis://", "redis://eval:pw@")
        finally:
            admin.execute_command("ACL", "DELUSER", "eval")


@pytest.mark.parametrize(
    ("rules", "needed"),
    [
        (["-brpop"], "+brpop"),
        (["-lpush", "-hset"], "+lpush +hset"),
        (["-eval", "-evalsha"], "+eval +evalsha"),
        (["-script"], "+script"),
        (["-subscribe"], "+subscribe"),
        (["-publish"], "+publish"),
        (["-multi"], "+multi"),
        (["resetkeys", "~others:*"], "~team:*"),
        (["resetchannels"], "&team:*"),
    ],
)
def test_rights_that_are_missing_are_named_with_the_line_to_run(redis_url: str, rules: list[str], needed: str) -> None:
    with user_with(redis_url, *rules) as url:
        broker = Broker(f"{url}?global_keyprefix=team:")
        with contextlib.closing(Publisher(broker, "q")) as publisher, pytest.raises(BrokerError) as raised:
            publisher.connect()
        assert raised.value.message.endswith(f"lacks rights that doteval needs: {needed}")
        assert raised.value.remedy is not None
        line = f"ACL SETUSER eval {needed}"
        assert line in raised.value.remedy
        with redis.Redis.from_url(redis_url) as admin:
            admin.execute_command(*line.split())
            with contextlib.closing(Publisher(broker, "q")) as publisher:
                publisher.connect()
            # Those that cannot be deleted expire.
            assert admin.keys("*doteval.check*") == []


def test_a_right_that_is_lost_while_connected(redis_url: str) -> None:
    with user_with(redis_url) as url, contextlib.closing(Publisher(Broker(url), "q")) as publisher:
        publish(publisher)
        with redis.Redis.from_url(redis_url) as admin:
            admin.execute_command("ACL", "SETUSER", "eval", "-zadd", "-llen")
        for action in (lambda: publisher.renew(["a lease"]), publisher.queued, lambda: publish(publisher)):
            with pytest.raises(BrokerError, match=r"lacks a right: .*no permissions") as raised:
                action()
            assert re.search(r"ACL SETUSER eval \+(zadd|llen) ", str(raised.value.remedy))


@pytest.fixture
def tls_port(tmp_path: Path, redis_service: object) -> Iterator[int]:
    """The port of a Redis that speaks TLS only."""
    binary = shutil.which("redis-server")
    openssl = shutil.which("openssl")
    if binary is None or openssl is None:
        pytest.skip("there is no redis-server with TLS, or no openssl, on the PATH")
    certificate = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run(
        [*certificate, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True
    )
    port = free_port()
    tls = ["--tls-cert-file", tmp_path / "cert", "--tls-key-file", tmp_path / "key", "--tls-auth-clients", "no"]
    command = [binary, "--port", "0", "--tls-port", str(port), *tls, "--save", "", "--dir", tmp_path]
    process = subprocess.Popen([*command, "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port), what="a Redis with TLS")
        yield port
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_tls_where_there_is_none_and_none_where_there_is(redis_url: str, tls_port: int, tmp_path: Path) -> None:
    for url in (f"redis://127.0.0.1:{tls_port}/0", redis_url.replace("redis://", "rediss://")):
        with contextlib.closing(Publisher(Broker(url), "q")) as publisher, pytest.raises(BrokerError) as raised:
            publisher.connect()
        assert "TLS" in str(raised.value.remedy)
    verified = f"rediss://localhost:{tls_port}/0?ssl_cert_reqs=required"
    with contextlib.closing(Publisher(Broker(verified), "q")) as publisher, pytest.raises(BrokerError) as raised:
        publisher.connect()
    assert "ssl_ca_certs=PATH" in str(raised.value.remedy)
    with contextlib.closing(Publisher(Broker(f"{verified}&ssl_ca_certs={tmp_path}/cert"), "q")) as publisher:
        publisher.connect()
        publish(publisher)
        assert publisher.queued() == 1


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        (("redis://", "redis://eval:wrong@"), "invalid username-password", "Check the user and the password"),
        (("redis://", "redis://stranger:pw@"), "invalid username-password", "Check the user and the password"),
        (("/0", "/99"), "DB index is out of range", "0 to 15"),
        (("redis://", "sentinel://"), "SENTINEL", "port of the Sentinels"),
    ],
)
def test_refusals_of_redis(redis_url: str, change: tuple[str, str], said: str, remedy: str) -> None:
    with user_with(redis_url):
        url = redis_url.replace(*change) + ("?master_name=main" if "sentinel" in change[1] else "")
        with contextlib.closing(Publisher(Broker(url), "q")) as publisher, pytest.raises(BrokerError) as raised:
            publisher.connect()
    assert said in raised.value.message
    assert remedy in str(raised.value.remedy)


def test_a_wrong_password_and_a_replica_lead_to_their_sections(redis_url: str) -> None:
    with user_with(redis_url):
        wrong = redis_url.replace("redis://", "redis://eval:wrong@")
        with contextlib.closing(Publisher(Broker(wrong), "q")) as publisher, pytest.raises(BrokerError) as raised:
            publisher.connect()
    assert_shown("broker-login", raised.value)
    with redis.Redis.from_url(redis_url) as client:
        # Of a primary that is not there.
        client.replicaof("127.0.0.1", "1")
        try:
            with (
                contextlib.closing(Publisher(Broker(redis_url), "q")) as publisher,
                pytest.raises(BrokerError) as raised,
            ):
                publisher.connect()
        finally:
            client.replicaof("NO", "ONE")
    assert_shown("broker-read-only", raised.value)


def test_a_master_that_no_sentinel_knows(redis_url: str) -> None:
    broker = Broker("sentinel://127.0.0.1:1/0?master_name=main")
    with contextlib.closing(Publisher(broker, "q")) as publisher, pytest.raises(BrokerError) as raised:
        publisher.connect()
    assert raised.value.message.endswith("cannot be used: no master found for 'main'")
    assert "Sentinels" in str(raised.value.remedy)


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
        "sentinel down-after-milliseconds main 60000\nsentinel failover-timeout main 5000\n"
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
        # Not before: it may take a Redis of a busy machine for one that is down.
        redis_at(sentinels.watcher).execute_command("SENTINEL", "SET", "main", "down-after-milliseconds", 500)
        sentinels.master_process.kill()
        connecting_anew(lambda: publish(publisher))
        connecting_anew(publisher.queued)
        assert publisher.queued() == 2
        connecting_anew(lambda: client.get("state"))
        assert client.get("state") == b"kept"
        with redis_at(sentinels.replica) as replica:
            assert replica.info("replication")["role"] == "master"
