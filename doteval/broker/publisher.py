"""Publishing row tasks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError, OperationalError

from doteval.broker.celery_app import VISIBILITY_TIMEOUT, celery_app, declared_queues
from doteval.broker.fair_queues import FAIR_QUEUES, fair_queue_name
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError

# Seconds until a broker that does not answer counts as unreachable.
_CONNECT_SECONDS = 5


class Publisher:
    """Sends row tasks to queues of a broker, over one connection. Safe to use from several threads.

    `queue` is the one that is meant where none is named. It connects when it must, and again after a failure.
    """

    def __init__(self, broker: Broker, queue: str, visibility_timeout: int = VISIBILITY_TIMEOUT) -> None:
        self.queue = queue
        self._broker = broker
        self._app: Celery = celery_app(broker, queue, visibility_timeout)
        self._connection: Any = None
        # For questions and leases, every second or two: to open one takes longer than to ask.
        self._channel: Any = None
        # A connection serves one thread at a time.
        self._lock = threading.Lock()

    @property
    def is_pull_based(self) -> bool:
        """Whether worker processes ask for each message, when they want it; else they are sent what they may hold."""
        return self._broker.is_pull_based

    def connect(self) -> None:
        """Connect now. Raises BrokerError if the broker cannot be reached within seconds."""
        with self._lock:
            self._connected()

    def publish(
        self,
        tasks: Iterable[RowTask],
        *,
        experiment: str,
        evaluation: str,
        fair_queue: int = 0,
        queue: str | None = None,
    ) -> int:
        """Send row tasks on a lane; returns how many. Raises BrokerError if the broker cannot be reached."""
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
            except (OperationalError, OSError, *connection.connection_errors) as error:
                raise self._lost(error) from error
        return count

    def queued(self, fair_queue: int | None = None, *, queue: str | None = None) -> int:
        """How many messages wait on a lane of a queue, or on all of them, not counting those that workers hold.

        Raises BrokerError if the broker cannot be reached.
        """
        with self._lock:
            connection = self._connected()
            try:
                numbers = range(FAIR_QUEUES) if fair_queue is None else [fair_queue]
                return sum(self._waiting(self._known(queue, each)) for each in numbers)
            except (OperationalError, OSError, *connection.connection_errors) as error:
                raise self._lost(error) from error

    def _known(self, queue: str | None, fair_queue: int) -> str:
        """The broker's name of a lane, after which our app knows how to declare it."""
        queues, name = self._app.amqp.queues, fair_queue_name(queue or self.queue, fair_queue)
        if name not in queues:
            for each in declared_queues(queue or self.queue, self._broker):
                queues.add(each)
        return name

    def _waiting(self, name: str) -> int:
        try:
            queue = self._app.amqp.queues[name](self._opened())
            return int(queue.queue_declare(passive=True).message_count)
        except (ChannelError, *self._connection.channel_errors):
            # Nothing has been sent yet, so there is no queue, or on Redis nothing waits.
            if not self._broker.is_pull_based:
                # The broker has closed the channel over it.
                self._channel = None
            return 0

    def renew(self, leases: Sequence[str]) -> None:
        """Tell Redis that messages are still being worked on, so that it does not hand them out again.

        `leases` are delivery tags. Other brokers notice by the connection and need no telling. Raises
        BrokerError if the broker cannot be reached.
        """
        if not leases or not self._broker.has_leases:
            return
        with self._lock:
            connection = self._connected()
            try:
                channel = self._opened()
                # kombu keeps the time of each delivery here, and restores what is older than the
                # visibility timeout. XX: one that was acknowledged meanwhile must not come back.
                channel.client.zadd(channel.unacked_index_key, dict.fromkeys(leases, time.time()), xx=True)
            except (OperationalError, OSError, *connection.connection_errors) as error:
                raise self._lost(error) from error

    def close(self) -> None:
        with self._lock:
            self._release()

    def _connected(self) -> Any:
        if self._connection is None:
            connection: Any = None
            try:
                # Set before it is connected, so that `_lost` releases it.
                connection = self._connection = self._app.connection_for_write()
                connection.ensure_connection(max_retries=1, interval_start=0, timeout=_CONNECT_SECONDS)
            except (ValueError, KeyError, ImportError) as error:
                self._release()
                # Without the error's text, which may quote a part of the password.
                raise BrokerError(
                    f"the broker URL {self._broker} cannot be used ({type(error).__name__})",
                    remedy="It should look like redis://host:6379/0; in a password, write / as %2F and @ as %40.",
                ) from None
            except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
                # The last are what RabbitMQ says when it refuses a password or a virtual host.
                raise self._lost(error) from error
        return self._connection

    def _opened(self) -> Any:
        if self._channel is None:
            self._channel = self._connected().channel()
        return self._channel

    def _release(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            connection.release()

    def _lost(self, error: BaseException) -> BrokerError:
        self._release()
        return BrokerError(
            f"the broker {self._broker} cannot be reached: {type(error).__name__}: {error}",
            remedy="Check that it runs and that the URL, set by --broker or DOTEVAL_BROKER, is right.",
        )
