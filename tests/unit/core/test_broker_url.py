"""What a broker can do is read from its URL, and its password never appears in text."""

from __future__ import annotations

import pytest

from doteval.core.broker_url import Broker
from doteval.errors import BrokerError


@pytest.mark.parametrize(
    ("url", "pull_based", "holds_shared_state"),
    [
        ("redis://host:6379/0", True, True),
        ("rediss://:hunter2@host:6380/1", True, True),
        ("valkey://host/0", True, True),
        ("valkeys://host/0", True, True),
        ("redis+socket:///tmp/redis.sock?virtual_host=0", True, True),
        ("unix:///tmp/redis.sock", True, True),
        ("sentinel://one:26379;sentinel://two:26379", True, True),
        ("redis://one/0;redis://two/0", True, False),
        ("amqp://guest:hunter2@host//", False, False),
        ("nosuch://host", False, False),
        ("", False, False),
    ],
)
def test_capabilities_follow_from_the_url(url: str, pull_based: bool, holds_shared_state: bool) -> None:
    broker = Broker(url)
    assert broker.is_pull_based is broker.has_priorities is broker.has_leases is pull_based
    assert broker.has_quorum_queues is not pull_based
    assert broker.holds_shared_state is holds_shared_state


@pytest.mark.parametrize(
    ("url", "celery_url", "redis_url"),
    [
        ("redis://:hunter2@host:6379/3", "redis://:hunter2@host:6379/3", "redis://:hunter2@host:6379/3"),
        ("redis://host?db=2", "redis://host/2", "redis://host/2"),
        ("valkey://u:p%40w@host/1", "redis://u:p%40w@host/1", "redis://u:p%40w@host/1"),
        (
            "valkeys://host/0?ssl_cert_reqs=required&ssl_ca_certs=/a/ca.pem&socket_timeout=4",
            "rediss://host/0?ssl_cert_reqs=required&ssl_ca_certs=/a/ca.pem",
            "rediss://host/0?ssl_cert_reqs=required&ssl_ca_certs=/a/ca.pem",
        ),
        (
            "redis+socket:///tmp/r.sock?virtual_host=2",
            "redis+socket:///tmp/r.sock?virtual_host=2",
            "unix:///tmp/r.sock?db=2",
        ),
        (
            "redis+socket:///tmp/r.sock?virtual_host=/2",
            "redis+socket:///tmp/r.sock?virtual_host=2",
            "unix:///tmp/r.sock?db=2",
        ),
        ("redis+socket://%2Ftmp%2Fr.sock", "redis+socket:///tmp/r.sock?virtual_host=0", "unix:///tmp/r.sock?db=0"),
        ("unix:///tmp/r.sock?db=3", "redis+socket:///tmp/r.sock?virtual_host=3", "unix:///tmp/r.sock?db=3"),
        ("redis://one/0;redis://two/0", "redis://one/0;redis://two/0", "redis://one/0"),
        ("amqp://guest:pw@host//?heartbeat=10", "amqp://guest:pw@host//?heartbeat=10", None),
    ],
)
def test_celery_and_redis_py_get_the_urls_that_they_take(url: str, celery_url: str, redis_url: str | None) -> None:
    connection = Broker(url).connection
    assert (connection.celery_url, connection.redis_url) == (celery_url, redis_url)


def test_parameters_become_options() -> None:
    url = "redis://host/0?socket_timeout=4&health_check_interval=7&global_keyprefix=team:&client_name=me"
    connection = Broker(url).connection
    assert connection.celery_url == "redis://host/0"
    options = {"socket_timeout": 4.0, "socket_connect_timeout": 5.0, "health_check_interval": 7, "client_name": "me"}
    assert connection.redis_options.items() >= options.items()
    assert connection.transport_options.items() >= {**options, "global_keyprefix": "team:"}.items()
    assert connection.key_prefix == "team:"


def test_no_wait_for_redis_is_unbounded() -> None:
    for url in ("redis://host", "rediss://host", "redis+socket:///r.sock", "sentinel://host?master_name=m"):
        connection = Broker(url).connection
        for options in (connection.transport_options, connection.redis_options):
            assert (options["socket_timeout"], options["socket_connect_timeout"]) == (10.0, 5.0)
            assert ("socket_keepalive_options" in options) is ("socket:" not in url)


def test_sentinels_are_asked_for_the_redis() -> None:
    url = "sentinel://u:p%40w@one:1;sentinel://two/?db=4&master_name=main&sentinel_password=hush&min_other_sentinels=1"
    connection = Broker(url).connection
    assert connection.celery_url == "sentinel://u:p%40w@one:1/4;sentinel://two/4"
    assert connection.sentinels == (("one", 1), ("two", 26379))
    assert (connection.master_name, connection.redis_url) == ("main", None)
    assert connection.transport_options["master_name"] == "main"
    assert connection.transport_options["min_other_sentinels"] == 1
    assert connection.transport_options["sentinel_kwargs"]["password"] == "hush"
    assert connection.redis_options.items() >= {"db": 4, "username": "u", "password": "p@w"}.items()
    assert "hush" not in str(Broker(url))


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("redis://:hunter2@host/0?sockettimeout=4", "does not know: sockettimeout"),
        ("redis://:hunter2@host/0?socket_timeout=soon", "no valid value for its parameter socket_timeout"),
        ("redis://:hunter2@host/0?db=main", "no number as its database"),
        ("redis://:hunter2@host/0?master_name=m", "does not know: master_name"),
        ("sentinel://:hunter2@host/0", "which Redis the Sentinels shall find"),
        ("sentinel://:hunter2@host/0?master_name=", "which Redis the Sentinels shall find"),
        ("redis://:hunter2@host;amqp://other", "mixes kinds"),
        ("redis://:hunter2@host:port/0", "cannot be used"),
        ("amqp://guest:hunter2@host//?frame_max=4", "does not know: frame_max"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(url: str, what: str) -> None:
    with pytest.raises(BrokerError, match=what) as refused:
        _ = Broker(url).connection
    assert "hunter2" not in str(refused.value)


def test_text_of_a_broker_hides_the_password() -> None:
    broker = Broker("redis://:hunter2@host/0", private="a1")
    assert f"{broker} {broker!r}" == "redis://:***@host/0 Broker('redis://:***@host/0', private='a1')"


def test_only_a_broker_with_a_name_of_its_own_is_private() -> None:
    assert Broker("redis://host", private="a1").is_private
    assert not Broker("redis://host").is_private


def test_the_database_of_a_redis_that_several_sentinels_know() -> None:
    connection = Broker("sentinel://one;sentinel://two/6?master_name=main").connection
    assert connection.celery_url == "sentinel://one/6;sentinel://two/6"
    assert connection.redis_options["db"] == 6
