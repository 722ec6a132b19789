"""Publishing row tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from doteval.errors import BrokerError
from doteval.queue.app import celery_app
from doteval.queue.row_task import TASK_NAME, RowTask
from doteval.urls import hide_password


class Publisher:
    """Sends row tasks to one queue of a broker, over one connection."""

    def __init__(self, broker: str, queue: str, *, app: Celery | None = None) -> None:
        self.queue = queue
        self._broker = broker
        self._app = app or celery_app(broker, queue)
        self._connection: Any = None

    def connect(self) -> None:
        """Connect now. Raises BrokerError if the broker cannot be reached within seconds."""
        connection = self._app.connection_for_write()
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        except (OperationalError, OSError, ValueError, KeyError, ImportError) as error:
            raise self._unreachable(error) from error
        self._connection = connection

    def publish(self, tasks: Iterable[RowTask], *, experiment: str, evaluation: str) -> int:
        """Send row tasks; returns how many. Raises BrokerError if the broker cannot be reached."""
        count = 0
        try:
            with self._app.amqp.Producer(self._connection) as producer:
                for task in tasks:
                    self._app.send_task(
                        TASK_NAME,
                        args=task.arguments(),
                        queue=self.queue,
                        producer=producer,
                        shadow=evaluation,
                        argsrepr=task.summary(experiment),
                        kwargsrepr="",
                        ignore_result=True,
                    )
                    count += 1
        except (OperationalError, OSError, *self._connection_errors()) as error:
            raise self._unreachable(error) from error
        return count

    def queued(self) -> int:
        """How many messages wait in the queue, not counting those that workers hold."""
        try:
            with self._connection.channel() as channel:
                return int(self._app.amqp.queues[self.queue](channel).queue_declare(passive=True).message_count)
        except self._channel_errors():
            # Nothing has been sent yet, so there is no queue.
            return 0
        except (OperationalError, OSError, *self._connection_errors()) as error:
            raise self._unreachable(error) from error

    def reconnect_if_needed(self) -> None:
        """Connect unless connected. Raises BrokerError if that is not possible yet."""
        if self._connection is None or not self._connection.connected:
            self.close()
            self.connect()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.release()
            self._connection = None

    def _connection_errors(self) -> tuple[type[BaseException], ...]:
        return tuple(self._connection.connection_errors) if self._connection is not None else ()

    def _channel_errors(self) -> tuple[type[BaseException], ...]:
        from kombu.exceptions import ChannelError

        return (ChannelError, *(self._connection.channel_errors if self._connection is not None else ()))

    def _unreachable(self, error: BaseException) -> BrokerError:
        return BrokerError(
            f"the broker {hide_password(self._broker)} cannot be reached: {type(error).__name__}: {error}",
            remedy="Check that it runs and that the URL, set by --broker or DOTEVAL_BROKER, is right.",
        )
