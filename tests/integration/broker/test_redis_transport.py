"""The changes to kombu's Redis transport work on a real Redis."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer

from doteval.broker.celery_app import celery_app, declared_queues
from doteval.broker.messages import RowTask
from doteval.broker.publisher import Publisher
from doteval.broker.redis_transport import (
    ResilientChannel,
    ResilientQoS,
    ResilientTransport,
    fetch_while,
    note_answers,
)
from doteval.broker.renewable_connections import renew_connections
from doteval.core.broker_url import Broker
from tests.support.project import wait_until
from tests.support.silent_connections import SilentProxy


def test_the_transport_is_used_after_kombu_cached_its_own(redis_url: str) -> None:
    with Connection(redis_url) as connection:
        assert not isinstance(connection.transport, ResilientTransport)
    with celery_app(Broker(redis_url), "q").connection_for_read() as connection:
        assert isinstance(connection.transport, ResilientTransport)
        with connection.clone() as another:
            assert isinstance(another.transport, ResilientTransport)


def test_a_refused_acknowledgement_leaves_room_for_other_messages(redis_url: str) -> None:
    """A worker process that holds as many messages as it may goes on once a full Redis has room again."""
    publisher = Publisher(Broker(redis_url), "q")
    publisher.publish([RowTask("u", first, first) for first in range(2)], experiment="x", evaluation="eval_a")
    publisher.close()
    came: list[Any] = []
    with (
        redis.Redis.from_url(redis_url) as client,
        celery_app(Broker(redis_url), "q").connection_for_read() as connection,
        connection.channel() as channel,
    ):
        channel.basic_qos(0, 1, False)
        queue, *_ = declared_queues("q", Broker(redis_url))
        with Consumer(channel, queue, callbacks=[lambda _, message: came.append(message)], accept=["json"]):
            connection.drain_events(timeout=60)
            assert not channel.qos.can_consume()
            client.config_set("maxmemory", 1)
            try:
                with pytest.raises(redis.exceptions.OutOfMemoryError):
                    came[0].ack()
            finally:
                client.config_set("maxmemory", 0)
            assert channel.qos.can_consume()
            connection.drain_events(timeout=60)
            came[1].ack()
    assert [message.payload[0] for message in came] == [["u", 0, 0], ["u", 1, 1]]


def test_no_message_is_fetched_unless_it_is_wanted(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResilientChannel, "wants_more", ResilientChannel.wants_more)
    publisher = Publisher(Broker(redis_url), "q")
    publisher.publish([RowTask("u", 0, 0)], experiment="x", evaluation="eval_a")
    came: list[Any] = []
    wanted = False
    fetch_while(lambda: wanted)
    with celery_app(Broker(redis_url), "q").connection_for_read() as connection, connection.channel() as channel:
        queue, *_ = declared_queues("q", Broker(redis_url))
        with Consumer(channel, queue, callbacks=[lambda _, message: came.append(message)], accept=["json"]):
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.5)
            assert publisher.queued() == 1
            wanted = True
            connection.drain_events(timeout=60)
            came[0].ack()
    publisher.close()
    assert [message.payload[0] for message in came] == [["u", 0, 0]]


def test_closing_a_channel_ends_a_pending_fetch(redis_url: str) -> None:
    app = celery_app(Broker(redis_url), "q")
    # BRPOP would end by itself after a day.
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "polling_interval": 86_400}
    connection = app.connection_for_read()
    channel = connection.default_channel
    queue, *_ = declared_queues("q", Broker(redis_url))
    with Consumer(channel, queue, accept=["json"]):
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        assert channel._in_poll
        closing = threading.Thread(target=connection.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()


@pytest.mark.parametrize("url", ["redis_url", "redis_socket_url"])
def test_a_thread_that_waits_for_an_answer_is_freed_when_connections_are_renewed(
    request: pytest.FixtureRequest, url: str
) -> None:
    with redis.Redis.from_url(request.getfixturevalue("redis_url")) as other:
        connection = celery_app(Broker(request.getfixturevalue(url)), "q").connection_for_read()
        client = connection.default_channel._create_client()
        ended: list[type[BaseException]] = []

        def wait() -> None:
            try:
                client.blpop("never", timeout=3600)
            except redis.exceptions.ConnectionError as error:
                ended.append(type(error))

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: other.info("clients")["blocked_clients"] == 1, what="the wait")
        assert renew_connections() >= 1
        waiting.join(60)
        assert ended == [redis.exceptions.ConnectionError]
        # The next command has a connection again.
        assert client.ping()
        connection.release()


def test_each_look_for_expired_leases_is_an_answer(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResilientQoS, "on_answer", ResilientQoS.on_answer)
    answers: list[None] = []
    note_answers(lambda: answers.append(None))
    with SilentProxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        broker = Broker(f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=0.3")
        with celery_app(broker, "q").connection_for_read() as connection, connection.channel() as channel:
            channel.qos.restore_visible(interval=1)
            assert len(answers) == 1
            assert proxy.silence() >= 1
            with pytest.raises(redis.exceptions.TimeoutError):
                channel.qos.restore_visible(interval=1)
            assert len(answers) == 1
            channel.qos.restore_visible(interval=1)
            assert len(answers) == 2
