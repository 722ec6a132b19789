"""kombu's RabbitMQ transport, changed for row tasks that take longer than RabbitMQ's `consumer_timeout`.

RabbitMQ then closes the channel and delivers its messages again. Celery 5.7 ends the worker process for an error of a
channel, and its fixtures would have to be loaded anew. Here it counts as a lost connection: the process connects anew,
and drops the messages whose rows it still runs.
"""

from __future__ import annotations

from typing import Any

from amqp.exceptions import PreconditionFailed, RecoverableConnectionError
from kombu.transport import pyamqp

# How RabbitMQ begins the reason. Other failed preconditions, as a queue of another type, stay errors.
_TIMED_OUT = "PRECONDITION_FAILED - delivery acknowledgement on channel"


class _Channel(pyamqp.Channel):
    def _on_close(self, reply_code: int, reply_text: str, class_id: int, method_id: int) -> None:
        close: Any = super()._on_close
        try:
            close(reply_code, reply_text, class_id, method_id)
        except PreconditionFailed as error:
            if reply_text.startswith(_TIMED_OUT):
                raise RecoverableConnectionError(reply_text) from error
            raise


class _Connection(pyamqp.Connection):
    Channel = _Channel


class RenewingTransport(pyamqp.Transport):
    """kombu's RabbitMQ transport with these channels."""

    Connection = _Connection


class RenewingSSLTransport(pyamqp.SSLTransport):
    """The same over TLS."""

    Connection = _Connection
