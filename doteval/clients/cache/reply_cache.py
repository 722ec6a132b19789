"""The reply cache that all worker processes share. For each key one request at a time is made.

A caller that asks for a key gets the stored reply or a lease. With the lease it makes the request while all others
wait, until it stores a reply or releases the lease. The lease is renewed while the process lives; if the process dies,
the lease expires within seconds and another caller gets it.

One thread talks to the storage and batches what has been asked meanwhile: many rows of a process cost few round trips,
and rows on an event loop never block it.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from doteval.core import clocks
from doteval.core.liveness import LEASE_RENEW_SECONDS
from doteval.errors import ResourceError

logger = logging.getLogger("doteval.clients")

# A lease is renewed for this long at most, so that a reply that nobody reads to its end does not block others for ever.
_LONGEST_LEASE_SECONDS = 900.0
_FIRST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.02, 0.25


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The decoded body of a successful reply, and its content type."""

    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for a key. Answered by the reply, True for a lease, or False if another process has the lease.

    A reply stored before `since`, in seconds since the epoch, counts as missing.
    """

    key: bytes
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Put:
    """Store a reply, and release the lease."""

    key: bytes
    reply: StoredReply


@dataclass(frozen=True, slots=True)
class Release:
    """Release a lease."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Renew:
    """Renew a lease for another LEASE_SECONDS."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a reply."""

    key: bytes


Operation = Ask | Put | Release | Renew | Drop
Answer = StoredReply | bool | None


class Storage(Protocol):
    """Holds replies and leases. Used by one thread only.

    A storage holds a random secret and keeps everything under `stored_key`.
    """

    def perform(self, operations: Sequence[Operation]) -> list[Answer]:
        """One answer for each operation. Raises ResourceError if the storage cannot be reached or used."""

    def close(self) -> None:
        """Close connections."""


def stored_key(key: bytes, secret: bytes) -> bytes:
    """The key under which a storage keeps things: it reveals nothing without the storage's secret.

    Keys are made from API keys too, and those of a gateway may be short enough to be guessed.
    """
    return hashlib.blake2b(key, key=secret, digest_size=32).digest()


class ReplyCache:
    """See the module's docstring. Safe to use from any thread, and from event loops through the futures."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._inbox: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._pending: dict[bytes, _PendingKey] = {}
        self._leased: dict[bytes, float] = {}
        self._last_warning = ""
        self._lock = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ask(self, key: bytes, since: float = 0.0) -> Future[StoredReply | None]:
        """The reply, or None with a lease of the key: then the caller must call `put` or `release`.

        A reply stored before `since` (seconds since the epoch) counts as missing. The future raises ResourceError if
        the cache cannot be reached.
        """
        future: Future[StoredReply | None] = Future()
        with self._lock:
            if not self._closed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name="doteval-cache", daemon=True)
                    self._thread.start()
                self._inbox.put(_Command("ask", key, future=future, since=since))
                return future
        future.set_exception(_closed_error())
        return future

    def put(self, key: bytes, reply: StoredReply) -> None:
        """Store the reply, give it to all callers that wait for it, and release the lease."""
        self._inbox.put(_Command("put", key, reply=reply))

    def release(self, key: bytes) -> None:
        """Release the lease without a reply."""
        self._inbox.put(_Command("release", key))

    def drop(self, key: bytes) -> None:
        """Remove a reply, so that the next caller makes the request again."""
        self._inbox.put(_Command("drop", key))

    def cancel(self, key: bytes, future: Future[StoredReply | None]) -> None:
        """Stop waiting for a future of `ask`. A lease that was granted in the same moment is released."""
        if not future.cancel() and future.exception() is None and future.result() is None:
            self.release(key)

    def close(self) -> None:
        """Release all leases, and close the storage. Callers that wait get a ResourceError."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._inbox.put(_Command("close"))
        if self._thread is not None:
            self._thread.join()

    # The methods below run on the thread of the cache.

    def _serve(self) -> None:
        renew_at = clocks.monotonic() + LEASE_RENEW_SECONDS
        while True:
            commands = self._commands(renew_at)
            closing = any(command.what == "close" for command in commands)
            operations: list[Operation] = []
            for command in commands:
                self._handle(command, operations)
            now = clocks.monotonic()
            if now >= renew_at:
                operations += [Renew(key) for key, until in self._leased.items() if until > now]
                renew_at = now + LEASE_RENEW_SECONDS
            if closing:
                operations += [Release(key) for key in self._leased]
            else:
                due = {key: pending for key, pending in self._pending.items() if pending.poll_at <= now}
                operations += [Ask(key, pending.since) for key, pending in due.items()]
            if operations:
                self._perform(operations)
            if closing:
                self._end()
                return

    def _commands(self, renew_at: float) -> list[_Command]:
        """The commands received until the next poll or renewal is due."""
        due = [pending.poll_at for pending in self._pending.values()]
        if self._leased:
            due.append(renew_at)
        try:
            commands = [self._inbox.get(timeout=max(0.0, min(due) - clocks.monotonic()) if due else None)]
        except queue.Empty:
            return []
        while not self._inbox.empty():
            commands.append(self._inbox.get())
        return commands

    def _handle(self, command: _Command, operations: list[Operation]) -> None:
        key = command.key
        if command.what == "ask":
            assert command.future is not None
            pending = self._pending.get(key)
            if pending is not None:
                pending.waiting.append(command.future)
                # All of them get a reply that is new enough for the strictest.
                pending.since = max(pending.since, command.since)
            else:
                poll_at = float("inf") if key in self._leased else 0.0
                self._pending[key] = _PendingKey(deque([command.future]), command.since, poll_at)
        elif command.what == "put":
            assert command.reply is not None
            self._leased.pop(key, None)
            operations.append(Put(key, command.reply))
            self._complete(key, command.reply)
        elif command.what == "release":
            self._leased.pop(key, None)
            operations.append(Release(key))
            if key in self._pending:
                self._pending[key].poll_at = 0.0
        elif command.what == "drop":
            operations.append(Drop(key))

    def _perform(self, operations: Sequence[Operation]) -> None:
        try:
            answers = self._storage.perform(operations)
        except ResourceError as error:
            self._warn(error)
            for operation in operations:
                if isinstance(operation, Ask):
                    self._fail(operation.key, error)
            return
        self._last_warning = ""
        for operation, answer in zip(operations, answers, strict=True):
            if isinstance(operation, Ask):
                self._answer(operation.key, answer)

    def _answer(self, key: bytes, answer: Answer) -> None:
        if isinstance(answer, StoredReply):
            self._complete(key, answer)
        elif answer:
            self._grant_lease(key)
        else:
            self._pending[key].poll_later()

    def _complete(self, key: bytes, reply: StoredReply) -> None:
        pending = self._pending.pop(key, None)
        for future in pending.waiting if pending else ():
            if future.set_running_or_notify_cancel():
                future.set_result(reply)

    def _grant_lease(self, key: bytes) -> None:
        """Let the first caller that waits make the request; the others go on waiting."""
        pending = self._pending[key]
        self._leased[key] = clocks.monotonic() + _LONGEST_LEASE_SECONDS
        pending.poll_at = float("inf")
        while pending.waiting:
            future = pending.waiting.popleft()
            if future.set_running_or_notify_cancel():
                if not pending.waiting:
                    del self._pending[key]
                future.set_result(None)
                return
        del self._pending[key]
        self._inbox.put(_Command("release", key))

    def _fail(self, key: bytes, error: ResourceError) -> None:
        pending = self._pending.pop(key)
        for future in pending.waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _warn(self, error: ResourceError) -> None:
        # Once for as long as the error stays the same.
        if error.message != self._last_warning:
            logger.warning("%s; rows go on without it", error.message)
        self._last_warning = error.message

    def _end(self) -> None:
        self._storage.close()
        for key in list(self._pending):
            self._fail(key, _closed_error())


def _closed_error() -> ResourceError:
    return ResourceError("the reply cache was closed")


@dataclass(slots=True)
class _PendingKey:
    """The callers that wait for a key, and when to ask the storage again, in monotonic seconds."""

    waiting: deque[Future[StoredReply | None]]
    since: float
    poll_at: float = 0.0
    pause: float = _FIRST_POLL_SECONDS

    def poll_later(self) -> None:
        self.poll_at = clocks.monotonic() + self.pause
        self.pause = min(_LONGEST_POLL_SECONDS, self.pause * 1.5)


@dataclass(frozen=True, slots=True)
class _Command:
    what: str
    key: bytes = b""
    reply: StoredReply | None = None
    future: Future[StoredReply | None] | None = None
    since: float = 0.0
