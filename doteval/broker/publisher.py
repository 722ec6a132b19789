"""Publishes row tasks, counts those that wait, and renews the leases of those that run."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from doteval.broker.celery_app import VISIBILITY_TIMEOUT, celery_app, declared_queues
from doteval.broker.fair_queues import FAIR_QUEUES, fair_queue_name
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.broker.refusals import broker_error, check_rights
from doteval.core import clocks
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError

# A broker that does not answer within so many seconds counts as unreachable.
_CONNECT_SECONDS = 5


class Publisher:
    """Sends row tasks to queues of a broker, over one connection. Safe to use from several threads.

    It connects with the first request, and again after a failure. All methods that need the broker raise BrokerError
    if it cannot be reached.

    queue: the default queue.
    visibility_timeout: seconds.
    """

    def __init__(self, broker: Broker, queue: str, visibility_timeout: int = VISIBILITY_TIMEOUT) -> None:
        self.queue = queue
        self._broker = broker
        self._app: Celery = celery_app(broker, queue, visibility_timeout)
        self._connection: Any = None
        # Kept open for `queued` and `renew`, called every second or two: opening one takes longer than a request.
        self._channel: Any = None
        # A kombu connection serves one thread at a time.
        self._lock = threading.Lock()

    @property
    def is_pull_based(self) -> bool:
        """Whether worker processes fetch each message when they want it; else the broker sends what they may hold."""
        return self._broker.is_pull_based

    def connect(self, *, with_rights: bool = True) -> None:
        """Connect now, and check that the user in the URL may do what is needed, unless `with_rights` is false.

        Raises BrokerError: the broker cannot be reached within seconds, or the user may not.
        """
        with self._lock:
            self._connected()
        if with_rights and not self._broker.is_private:
            check_rights(self._broker)

    def publish(
        self,
        tasks: Iterable[RowTask],
        *,
        experiment: str,
        evaluation: str,
        fair_queue: int = 0,
        queue: str | None = None,
    ) -> int:
        """Send row tasks to a fair queue of a queue. Returns how many.

        experiment, evaluation: names that Flower shows.
        """
        count = 0
        with self._lock:
            name = self._known(queue, fair_queue)
            connection = self._connected()
            try:
                with self._app.amqp.Producer(connection) as producer:
                    for task in tasks:
                        self._app.send_task(
                            TASK_NAME,
                            args=task.arguments(),
                            queue=name,
                            producer=producer,
                            shadow=evaluation,
                            argsrepr=task.summary(experiment),
                            kwargsrepr="",
                            ignore_result=True,
                        )
                        count += 1
            except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
                raise self._lost(error) from error
        return count

    def queued(self, fair_queue: int | None = None, *, queue: str | None = None) -> int:
        """How many messages wait in a fair queue of a queue, or in all of them. Held messages do not count."""
        with self._lock:
            connection = self._connected()
            try:
                numbers = range(FAIR_QUEUES) if fair_queue is None else [fair_queue]
                return sum(self._waiting(self._known(queue, each)) for each in numbers)
            except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
                raise self._lost(error) from error

    def waiting_in(self, names: Iterable[str]) -> dict[str, int]:
        """How many messages wait in each of these fair queues, by the broker's names for them."""
        with self._lock:
            connection = self._connected()
            try:
                return {name: self._waiting(name) for name in names}
            except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
                raise self._lost(error) from error

    def _known(self, queue: str | None, fair_queue: int) -> str:
        """The broker's name for a fair queue. The app knows afterwards how to declare it."""
        queues, name = self._app.amqp.queues, fair_queue_name(queue or self.queue, fair_queue)
        if name not in queues:
            for each in declared_queues(queue or self.queue, self._broker):
                queues.add(each)
        return name

    def _waiting(self, name: str) -> int:
        if self._broker.is_pull_based:
            # A passive declaration would look for the queue without the key prefix of the URL.
            return int(self._opened()._size(name))
        try:
            queue = self._app.amqp.queues[name](self._opened())
            return int(queue.queue_declare(passive=True).message_count)
        except (ChannelError, *self._connection.channel_errors):
            # There is no such queue, since nothing was sent to it yet. RabbitMQ closes the channel with this error.
            self._channel = None
            return 0

    def renew(self, leases: Sequence[str]) -> None:
        """Renew the leases of messages that are still being worked on, so that Redis does not deliver them again.

        leases: delivery tags.

        Does nothing for brokers without leases, which notice a dead worker process by its connection.
        """
        if not leases or not self._broker.has_leases:
            return
        with self._lock:
            connection = self._connected()
            try:
                channel = self._opened()
                # kombu keeps the time of each delivery here, and restores messages older than the visibility
                # timeout. XX: a message that was acknowledged meanwhile must not come back.
                channel.client.zadd(channel.unacked_index_key, dict.fromkeys(leases, clocks.now()), xx=True)
            except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
                raise self._lost(error) from error

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._release()

    def _connected(self) -> Any:
        if self._connection is None:
            connection: Any = None
            try:
                # Assigned before it is connected, so that `_lost` releases it.
                connection = self._connection = self._app.connection_for_write()
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
            except (ValueError, KeyError, ImportError) as error:
                self._release()
                # The error's own text may quote a part of the password.
                raise BrokerError(
                    f"the broker URL {self._broker} cannot be used ({type(error).__name__})",
                    remedy="It should look like redis://host:6379/0; in a password, write / as %2F and @ as %40.",
                ) from None
            except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
                # RabbitMQ reports a refused password or virtual host as a channel error.
                raise self._lost(error) from error
        return self._connection

    def _opened(self) -> Any:
        if self._channel is None:
            self._channel = self._connected().channel()
        return self._channel

    def _release(self, *, lost: bool = False) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        if lost and not self._broker.is_pull_based:
            # Closing it would ask RabbitMQ and wait for the answer.
            connection.collect()
        connection.release()

    def _lost(self, error: BaseException) -> BrokerError:
        self._release(lost=True)
        return broker_error(self._broker, error)
