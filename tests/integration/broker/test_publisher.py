"""Queues for a dispatcher: `Publisher` on a real Redis and the fake in its place keep the same contract."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from doteval.broker import celery_app as celery_app_module
from doteval.broker.celery_app import celery_app
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.broker.publisher import Publisher
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError
from tests.support.fake_queue import FakeQueue
from tests.support.ports import free_port
from tests.support.project import wait_until
from tests.support.rabbitmq import RabbitService
from tests.support.silent_connections import SilentProxy

Open = Callable[[str], Publisher | FakeQueue]
Take = Callable[[Publisher | FakeQueue], list[RowTask]]


@pytest.fixture(params=["fake", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_queue(kind: str, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens a queue by name."""
    opened: list[Publisher | FakeQueue] = []

    def open_one(name: str) -> Publisher | FakeQueue:
        opened.append(
            FakeQueue(name) if kind == "fake" else Publisher(Broker(request.getfixturevalue("redis_url")), name)
        )
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def take(kind: str, request: pytest.FixtureRequest) -> Take:
    """Takes the waiting row tasks in the order in which workers would receive them."""

    def taken(queue: Publisher | FakeQueue) -> list[RowTask]:
        if isinstance(queue, FakeQueue):
            return queue.take()
        with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
            return [RowTask(*arguments(message)) for message in drain(client, queue.queue)]

    return taken


def drain(client: redis.Redis, queue: str) -> Iterator[dict[str, Any]]:
    while (message := client.rpop(queue)) is not None:
        yield json.loads(message)  # type: ignore[arg-type] # the client's types cover async ones too


def arguments(message: dict[str, Any]) -> list[Any]:
    return list(json.loads(base64.b64decode(message["body"]))[0])


def tasks(count: int, *, uid: str = "u") -> list[RowTask]:
    return [RowTask(uid, 10 * number, 10 * number + 9) for number in range(count)]


def test_published_tasks_wait_in_order(open_queue: Open, take: Take) -> None:
    queue = open_queue("q")
    assert queue.publish(iter(tasks(3)), experiment="x", evaluation="eval_a") == 3
    assert queue.queued() == 3
    assert take(queue) == tasks(3)
    assert queue.queued() == 0


def test_row_tasks_may_go_to_another_queue(open_queue: Open) -> None:
    queue = open_queue("q")
    queue.publish(tasks(3), experiment="x", evaluation="eval_a", queue="gpu", fair_queue=2)
    queue.publish(tasks(1), experiment="x", evaluation="eval_a")
    assert (queue.queued(), queue.queued(queue="q"), queue.queued(queue="gpu"), queue.queued(2, queue="gpu")) == (
        1,
        1,
        3,
        3,
    )
    assert queue.queued(0, queue="gpu") == queue.queued(2) == queue.queued(queue="never") == 0


def test_a_queue_that_was_never_used_is_empty(open_queue: Open) -> None:
    assert open_queue("never").queued() == 0


def test_nothing_to_publish_is_no_error(open_queue: Open) -> None:
    queue = open_queue("q")
    assert queue.publish([], experiment="x", evaluation="eval_a") == 0
    assert queue.queued() == 0


def test_queues_are_separate(open_queue: Open, take: Take) -> None:
    ours, theirs = open_queue("ours"), open_queue("theirs")
    ours.publish(tasks(1, uid="ours"), experiment="x", evaluation="eval_a")
    theirs.publish(tasks(2, uid="theirs"), experiment="x", evaluation="eval_a")
    assert (ours.queued(), theirs.queued()) == (1, 2)
    assert take(ours) == tasks(1, uid="ours")
    assert (ours.queued(), theirs.queued()) == (0, 2)


def test_several_threads_may_publish(open_queue: Open, take: Take) -> None:
    queue = open_queue("q")
    start = threading.Barrier(4)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait(120)
            for _ in range(5):
                queue.publish(tasks(5, uid=str(number)), experiment="x", evaluation="eval_a")
                queue.queued()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failed
    assert queue.queued() == 100
    assert sorted(task.evaluation_uid for task in take(queue)) == sorted("0123" * 25)


def test_an_error_while_tasks_are_made_keeps_those_sent_before(open_queue: Open) -> None:
    queue = open_queue("q")

    def broken() -> Iterator[RowTask]:
        yield tasks(1)[0]
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        queue.publish(broken(), experiment="x", evaluation="eval_a")
    assert queue.queued() == 1


def test_a_queue_connects_again_after_close(open_queue: Open) -> None:
    queue = open_queue("q")
    queue.publish(tasks(1), experiment="x", evaluation="eval_a")
    queue.close()
    assert queue.queued() == 1


# The tests below are for `Publisher` only.


def test_a_message_carries_ids_and_shows_rows_first(redis_url: str) -> None:
    publisher = Publisher(Broker(redis_url), "q")
    publisher.publish([RowTask("abc", 0, 99)], experiment="my experiment", evaluation="eval_a[x]")
    publisher.close()
    with redis.Redis.from_url(redis_url) as client:
        (message,) = drain(client, "q")
    headers = message["headers"]
    assert message["content-type"] == "application/json"
    assert json.loads(base64.b64decode(message["body"]))[:2] == [["abc", 0, 99], {}]
    assert headers["task"] == TASK_NAME
    assert headers["shadow"] == "eval_a[x]"
    assert headers["argsrepr"] == "r0-99 my experiment"
    assert headers["kwargsrepr"] == ""
    assert headers["ignore_result"] is True


def test_a_message_of_another_serializer_is_refused(redis_url: str) -> None:
    assert set(celery_app(Broker(redis_url), "q").conf.accept_content) == {"json"}


def connecting_anew(action: Callable[[], int]) -> int:
    """The result of an action whose connection was lost: it may raise once, and then connects again."""
    deadline = time.monotonic() + 90
    while True:
        try:
            return action()
        except BrokerError:
            assert time.monotonic() < deadline


def test_a_lost_connection_is_made_again_for_publish(redis_url: str) -> None:
    publisher = Publisher(Broker(redis_url), "q")
    publisher.publish(tasks(1), experiment="x", evaluation="eval_a")
    with redis.Redis.from_url(redis_url) as client:
        # All other connections of the server, the publisher's among them.
        client.client_kill_filter(_type="normal", skipme=True)
    connecting_anew(lambda: publisher.publish(tasks(1), experiment="x", evaluation="eval_a"))
    assert publisher.queued() == 2
    publisher.close()


def test_repeated_counts_use_one_connection(redis_url: str) -> None:
    with contextlib.closing(Publisher(Broker(redis_url), "q")) as publisher, redis.Redis.from_url(redis_url) as client:
        client.zadd("unacked_index", {"a lease": 1.0})
        # For a queue that does not exist, and for one that does.
        for waiting in (0, 1):
            connections = set()
            for _ in range(20):
                assert publisher.queued() == waiting
                publisher.renew(["a lease"])
                connections.add(len(client.client_list()))
            assert len(connections) == 1
            publisher.publish(tasks(1), experiment="x", evaluation="eval_a")
        assert client.zscore("unacked_index", "a lease") > 1.0


def test_a_lost_connection_is_made_again_for_a_count(redis_url: str) -> None:
    with contextlib.closing(Publisher(Broker(redis_url), "q")) as publisher, redis.Redis.from_url(redis_url) as client:
        publisher.publish(tasks(2), experiment="x", evaluation="eval_a")
        assert publisher.queued() == 2
        client.client_kill_filter(_type="normal", skipme=True)
        assert connecting_anew(publisher.queued) == 2


def test_counting_in_a_missing_queue_of_rabbitmq_leaves_the_publisher_usable(rabbitmq_url: str) -> None:
    with contextlib.closing(Publisher(Broker(rabbitmq_url), "q")) as publisher:
        for _ in range(3):
            assert publisher.queued() == 0
        publisher.publish(tasks(1), experiment="x", evaluation="eval_a")
        wait_until(lambda: publisher.queued() == 1)
        assert publisher.queued(queue="never") == 0
        assert publisher.queued() == 1
        assert publisher.waiting_in(["never", "q", "q~1"]) == {"never": 0, "q": 1, "q~1": 0}


def test_an_unreachable_broker_is_reported_within_seconds_without_its_password() -> None:
    port = free_port()
    publisher = Publisher(Broker(f"redis://:hunter2@127.0.0.1:{port}/0"), "q")
    start = time.monotonic()
    for attempt in (
        publisher.connect,
        publisher.queued,
        lambda: publisher.publish(tasks(1), experiment="x", evaluation="eval_a"),
    ):
        with pytest.raises(BrokerError, match=rf"127\.0\.0\.1:{port}") as raised:
            attempt()
        assert "hunter2" not in str(raised.value)
        assert "--broker" in (raised.value.remedy or "")
    assert time.monotonic() - start < 20


def test_a_refusal_by_rabbitmq_is_reported_without_the_password(rabbitmq_service: RabbitService) -> None:
    place = rabbitmq_service.url.rpartition("@")[2]
    for broker in (f"amqp://guest:hunter2@{place}//", f"amqp://guest:guest@{place}/nosuch"):
        with pytest.raises(BrokerError, match=r"cannot be reached: (AccessRefused|NotAllowed)") as raised:
            Publisher(Broker(broker), "q").connect()
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "broker", ["nosuch://:hunter2@host", "redis://127.0.0.1:notaport/0", "redis://:hunter2/more@127.0.0.1:6379/0"]
)
def test_an_invalid_broker_url_is_reported_without_the_password(broker: str) -> None:
    with pytest.raises(BrokerError, match="cannot be used") as raised:
        Publisher(Broker(broker), "q").connect()
    assert "hunter2" not in str(raised.value)
    assert "%2F" in (raised.value.remedy or "")


@pytest.mark.parametrize("broker", ["redis_url", pytest.param("rabbitmq_url", marks=pytest.mark.variant)])
def test_a_silent_connection_is_lost_and_made_anew(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, broker: str
) -> None:
    monkeypatch.setattr(celery_app_module, "_ANSWER_SECONDS", 1)
    server, _, path = request.getfixturevalue(broker).rpartition("/")
    scheme, port = server.partition("127.0.0.1")[0], int(server.rpartition(":")[2])
    with SilentProxy(port) as proxy:
        seconds = "?socket_timeout=1" if broker == "redis_url" else ""
        publisher = Publisher(Broker(f"{scheme}127.0.0.1:{proxy.port}/{path}{seconds}"), "q")
        publisher.publish(tasks(3), experiment="x", evaluation="eval_a")
        # RabbitMQ counts a message when it has reached its queue.
        wait_until(lambda: publisher.queued() == 3)
        for _ in range(2):
            assert proxy.silence() >= 1
            with pytest.raises(BrokerError, match="does not answer: nothing came for"):
                publisher.queued()
            assert publisher.queued() == 3
        publisher.close()
