"""The cache of replies that all worker processes share, with one request at a time for each key.

Who asks for a key gets the reply, or the order to make the request: then the key is leased to this
process until it stores a reply or gives the lease back, and everybody else waits. The lease is renewed
while the process lives; when it dies, the lease runs out within seconds, and another takes over.

One thread talks to the storage, for everything that was asked meanwhile at once: many rows of a process
cost few round trips, and rows on an event loop never block it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from doteval.core.liveness import LEASE_RENEW_SECONDS
from doteval.errors import ResourceError

logger = logging.getLogger("doteval.clients")

# How long a lease is renewed at most: a reply that nobody reads to its end must not block others for ever.
_LONGEST_HOLD = 900.0
_FIRST_LOOK, _LONGEST_LOOK = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The body of a successful reply, without any coding of its transfer, and its content type."""

    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """→ the reply; True: leased to us; False: leased to somebody else.

    A reply from before `since`, in seconds since the epoch, counts as missing.
    """

    key: bytes
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Put:
    """Keep a reply, and give the lease back."""

    key: bytes
    reply: StoredReply


@dataclass(frozen=True, slots=True)
class Release:
    """Give a lease back."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Renew:
    """Keep a lease for another LEASE_SECONDS."""

    key: bytes


Operation = Ask | Put | Release | Renew
Answer = StoredReply | bool | None


class Storage(Protocol):
    """Where replies and leases are. Belongs to one thread."""

    def perform(self, operations: Sequence[Operation]) -> list[Answer]:
        """One answer for each operation. Raises ResourceError if the storage cannot be reached or used."""

    def close(self) -> None: ...


class ReplyCache:
    """See the module's docstring. Safe to use from any thread, and from event loops through the futures."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._inbox: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._asked: dict[bytes, _Asked] = {}
        self._held: dict[bytes, float] = {}
        self._complained = ""
        self._door = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ask(self, key: bytes, since: float = 0.0) -> Future[StoredReply | None]:
        """The reply, or None: the key is leased to the caller, who must call `put` or `release`.

        A reply from before `since` (seconds since the epoch) counts as missing. The future raises ResourceError
        if the cache cannot be reached.
        """
        future: Future[StoredReply | None] = Future()
        with self._door:
            if not self._closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name="doteval-cache", daemon=True)
                    self._thread.start()
                self._inbox.put(_Command("ask", key, future=future, since=since))
                return future
        future.set_exception(_closed_error())
        return future

    def put(self, key: bytes, reply: StoredReply) -> None:
        """Keep the reply for everybody who waits for it, and for later."""
        self._inbox.put(_Command("put", key, reply=reply))

    def release(self, key: bytes) -> None:
        """Give the lease back without a reply."""
        self._inbox.put(_Command("release", key))

    def abandon(self, key: bytes, future: Future[StoredReply | None]) -> None:
        """Whoever waited for the future of `ask` has left, perhaps just as it was completed."""
        if not future.cancel() and future.exception() is None and future.result() is None:
            self.release(key)

    def close(self) -> None:
        """Give all leases back, and the connection."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._inbox.put(_Command("close"))
        if self._thread is not None:
            self._thread.join()

    # What follows runs on the thread of the cache.

    def _serve(self) -> None:
        renew_at = time.monotonic() + LEASE_RENEW_SECONDS
        while True:
            commands = self._commands(renew_at)
            closing = any(command.what == "close" for command in commands)
            operations: list[Operation] = []
            for command in commands:
                self._take(command, operations)
            now = time.monotonic()
            if now >= renew_at:
                operations += [Renew(key) for key, until in self._held.items() if until > now]
                renew_at = now + LEASE_RENEW_SECONDS
            if closing:
                operations += [Release(key) for key in self._held]
            else:
                operations += [Ask(key, asked.since) for key, asked in self._asked.items() if asked.look_at <= now]
            if operations:
                self._perform(operations)
            if closing:
                self._end()
                return

    def _commands(self, renew_at: float) -> list[_Command]:
        """What came in until the next thing is due."""
        due = [asked.look_at for asked in self._asked.values()]
        if self._held:
            due.append(renew_at)
        try:
            commands = [self._inbox.get(timeout=max(0.0, min(due) - time.monotonic()) if due else None)]
        except queue.Empty:
            return []
        while not self._inbox.empty():
            commands.append(self._inbox.get())
        return commands

    def _take(self, command: _Command, operations: list[Operation]) -> None:
        key = command.key
        if command.what == "ask":
            assert command.future is not None
            asked = self._asked.get(key)
            if asked is not None:
                asked.waiting.append(command.future)
                # What is new enough for one of them is for all.
                asked.since = max(asked.since, command.since)
            else:
                look_at = float("inf") if key in self._held else 0.0
                self._asked[key] = _Asked(deque([command.future]), command.since, look_at)
        elif command.what == "put":
            assert command.reply is not None
            self._held.pop(key, None)
            operations.append(Put(key, command.reply))
            self._complete(key, command.reply)
        elif command.what == "release":
            self._held.pop(key, None)
            operations.append(Release(key))
            if key in self._asked:
                self._asked[key].look_at = 0.0

    def _perform(self, operations: Sequence[Operation]) -> None:
        try:
            answers = self._storage.perform(operations)
        except ResourceError as error:
            self._complain(error)
            for operation in operations:
                if isinstance(operation, Ask):
                    self._fail(operation.key, error)
            return
        self._complained = ""
        for operation, answer in zip(operations, answers, strict=True):
            if isinstance(operation, Ask):
                self._answer(operation.key, answer)

    def _answer(self, key: bytes, answer: Answer) -> None:
        if isinstance(answer, StoredReply):
            self._complete(key, answer)
        elif answer:
            self._hand_over(key)
        else:
            self._asked[key].look_later()

    def _complete(self, key: bytes, reply: StoredReply) -> None:
        asked = self._asked.pop(key, None)
        for future in asked.waiting if asked else ():
            if future.set_running_or_notify_cancel():
                future.set_result(reply)

    def _hand_over(self, key: bytes) -> None:
        """The lease is ours: the first who waits makes the request, the others wait for it."""
        asked = self._asked[key]
        self._held[key] = time.monotonic() + _LONGEST_HOLD
        asked.look_at = float("inf")
        while asked.waiting:
            future = asked.waiting.popleft()
            if future.set_running_or_notify_cancel():
                if not asked.waiting:
                    del self._asked[key]
                future.set_result(None)
                return
        del self._asked[key]
        self._inbox.put(_Command("release", key))

    def _fail(self, key: bytes, error: ResourceError) -> None:
        asked = self._asked.pop(key)
        for future in asked.waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _complain(self, error: ResourceError) -> None:
        # Once for as long as it lasts: rows go on without the cache.
        if error.message != self._complained:
            logger.warning("%s; rows go on without it", error.message)
        self._complained = error.message

    def _end(self) -> None:
        self._storage.close()
        for key in list(self._asked):
            self._fail(key, _closed_error())


def _closed_error() -> ResourceError:
    return ResourceError("the cache of replies was closed")


@dataclass(slots=True)
class _Asked:
    """Who waits for a key, and when to look for it."""

    waiting: deque[Future[StoredReply | None]]
    since: float
    look_at: float = 0.0
    pause: float = _FIRST_LOOK

    def look_later(self) -> None:
        self.look_at = time.monotonic() + self.pause
        self.pause = min(_LONGEST_LOOK, self.pause * 1.5)


@dataclass(frozen=True, slots=True)
class _Command:
    what: str
    key: bytes = b""
    reply: StoredReply | None = None
    future: Future[StoredReply | None] | None = None
    since: float = 0.0
