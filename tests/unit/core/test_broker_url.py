"""What a broker can do is read from its URL, and its password never appears in text."""

from __future__ import annotations

import pytest

from doteval.core.broker_url import Broker


@pytest.mark.parametrize(
    ("url", "pull_based", "answers_redis_commands", "holds_shared_state"),
    [
        ("redis://host:6379/0", True, True, True),
        ("rediss://:hunter2@host:6380/1", True, True, True),
        ("redis+socket:///tmp/redis.sock?virtual_host=0", True, True, True),
        ("sentinel://one:26379;sentinel://two:26379", True, False, False),
        ("redis://one/0;redis://two/0", True, True, False),
        ("amqp://guest:hunter2@host//", False, False, False),
        ("nosuch://host", False, False, False),
        ("", False, False, False),
    ],
)
def test_capabilities_follow_from_the_url(
    url: str, pull_based: bool, answers_redis_commands: bool, holds_shared_state: bool
) -> None:
    broker = Broker(url)
    assert broker.is_pull_based is broker.has_priorities is broker.has_leases is pull_based
    assert broker.has_quorum_queues is not pull_based
    assert broker.answers_redis_commands is answers_redis_commands
    assert broker.holds_shared_state is holds_shared_state


@pytest.mark.parametrize(
    ("url", "redis_url"),
    [
        ("redis://:hunter2@host:6379/3", "redis://:hunter2@host:6379/3"),
        ("redis+socket:///tmp/redis.sock?virtual_host=2", "unix:///tmp/redis.sock?db=2"),
        ("redis+socket:///tmp/redis.sock?virtual_host=/2", "unix:///tmp/redis.sock?db=2"),
        ("redis+socket://%2Ftmp%2Fredis.sock", "unix:///tmp/redis.sock?db=0"),
    ],
)
def test_a_socket_url_becomes_one_that_redis_py_takes(url: str, redis_url: str) -> None:
    assert Broker(url).redis_url == redis_url


def test_text_of_a_broker_hides_the_password() -> None:
    broker = Broker("redis://:hunter2@host/0", private="a1")
    assert f"{broker} {broker!r}" == "redis://:***@host/0 Broker('redis://:***@host/0', private='a1')"


def test_only_a_broker_with_a_name_of_its_own_is_private() -> None:
    assert Broker("redis://host", private="a1").is_private
    assert not Broker("redis://host").is_private
