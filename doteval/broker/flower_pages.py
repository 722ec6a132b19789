"""What Flower gets from doteval: the lengths of queues for its pages, and one line in its log for each outage.

Flower 2.2 reads queues over a connection of its own: to the first of several URLs or Sentinels, without the parameters
of the URL, and for RabbitMQ to its management plugin. It logs each failure to reach the broker, several for each page.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import redis
from kombu.exceptions import OperationalError

from doteval.broker.publisher import Publisher
from doteval.broker.refusals import broker_error
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError

logger = logging.getLogger("doteval.flower")

# Whose records may be about the broker. kombu has no other errors here.
_LOGGERS = ("flower.events", "flower.inspector", "flower.views.broker", "tornado.application", "kombu.mixins")
_BROKER_ERRORS = (BrokerError, OperationalError, redis.RedisError, ConnectionError, TimeoutError)
# Seconds between two looks whether an outage is over.
_LOOK_SECONDS = 2.0


class QueueLengths:
    """Reads how many messages wait in queues, over doteval's own connection. Stands in for Flower's `Broker`."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def queues(self, names: list[str]) -> list[dict[str, Any]]:
        """The queues as Flower's pages show them.

        Raises tornado.web.HTTPError: the broker cannot be reached.
        """
        # tornado comes with Flower only.
        from tornado.web import HTTPError

        try:
            waiting = await asyncio.to_thread(self._publisher.waiting_in, names)
        except BrokerError as error:
            # With a message it would be logged; the log says once what is wrong.
            raise HTTPError(503, reason="The broker cannot be reached") from error
        return [{"name": name, "messages": count} for name, count in waiting.items()]


class OutageLog:
    """Replaces the records of failures to reach the broker: by one when an outage begins, and one when it is over.

    A filter for the loggers that write them.

    ask: asks the broker anything. Raises BrokerError.
    """

    def __init__(self, broker: Broker, ask: Callable[[], object]) -> None:
        self._broker = broker
        self._ask = ask
        self._lock = threading.Lock()
        self._lasts = False

    def __call__(self, record: logging.LogRecord) -> bool:
        error = _broker_error_of(record)
        if error is None:
            return True
        with self._lock:
            begins, self._lasts = not self._lasts, True
        if begins:
            said = error if isinstance(error, BrokerError) else broker_error(self._broker, error)
            record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
            record.msg, record.args = "%s. Flower goes on trying", (said.message.rstrip("."),)
            threading.Thread(target=self._await_end, name="doteval-flower-outage", daemon=True).start()
        return begins

    def _await_end(self) -> None:
        pause = threading.Event()
        while True:
            pause.wait(_LOOK_SECONDS)
            try:
                self._ask()
            except BrokerError:
                continue
            break
        with self._lock:
            self._lasts = False
        logger.info("the broker answers again")


def install(broker: Broker, publisher: Publisher) -> None:
    """Have Flower's pages and log use these, in this process."""
    from flower.views import BaseHandler

    lengths, outages = QueueLengths(publisher), OutageLog(broker, publisher.queued)
    BaseHandler.get_broker = lambda _: lengths
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(outages)


def _broker_error_of(record: logging.LogRecord) -> BaseException | None:
    """The error of the broker that a record is about, None if it is about something else."""
    raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    named = record.args if isinstance(record.args, tuple) else ()
    for each in (raised, *named):
        # An error of a page names its status; the cause is the broker's.
        error = each.__cause__ or each if isinstance(each, Exception) else None
        if isinstance(error, Exception if record.name == "kombu.mixins" else _BROKER_ERRORS):
            return error
    return None
