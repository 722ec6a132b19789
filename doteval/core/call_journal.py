"""The call journal of a row in flight: what its calls asked and got, and the replies that it may replay.

The runner gives the row's meter a `RowCalls`; the journal step of the clients (`doteval.clients.journal`) notes each
call there when it ends. How calls are stored is left to `put`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from enum import StrEnum

from doteval.core.call_bodies import CallBody, RequestBase, RequestChain, pack
from doteval.core.fast_dataclass import row_value
from doteval.core.parking import Parking
from doteval.core.rescoring import MissingCalls, Rescoring
from doteval.core.results import Usage

# The two parts of a digest. Few other requests are in the journal of a row, so that few bytes are enough.
_ASKED_BYTES = 12
_WHERE_BYTES = 4


# A row that has got more than this asks for the rest again in another try.
_MOST_ANSWERED_BYTES = 4 * 1024 * 1024


class JournalMode(StrEnum):
    """What is stored of the calls of rows."""

    FULL = "full"
    """Requests and replies, which a row that runs again can replay."""
    USAGE = "usage"
    """Model, usage and times only."""
    OFF = "off"
    """Nothing."""


class CallSource(StrEnum):
    """Where the reply to a call came from."""

    LIVE = "live"
    CACHE = "cache"
    REPLAY = "replay"
    BATCH = "batch"


@row_value
class FinishedCall:
    """A call that has ended.

    digest: identifies what it asked, b"" if it cannot be replayed.
    position: counts the calls of one execution of the row, in the order in which they began.
    status: the HTTP status of the reply, 0 without one.
    started_at: in seconds since the epoch. seconds: until the reply was complete, with retries and waits.
    endpoint, content_type, error, request, reply: see `doteval.core.call_bodies.CallBody`.
    usage: what the reply reported, None if it reported nothing.
    base: the request of this execution that `request` begins like, None without one.
    replayed: the execution and the position under which the replayed reply was stored, None for other sources.
    judge: whether a judge asked.
    """

    digest: bytes
    position: int
    source: CallSource
    model: str
    status: int
    started_at: float
    seconds: float
    endpoint: str = ""
    content_type: str = ""
    error: str = ""
    request: bytes = b""
    reply: bytes = b""
    usage: Usage | None = None
    base: RequestBase | None = None
    replayed: tuple[int, int] | None = None
    judge: bool = False


@row_value
class RecordedCall:
    """A stored call whose reply can be replayed.

    packed: its body, see `doteval.core.call_bodies`.
    foreign: whether it belongs to the evaluation that is rescored.
    started_at: when it was sent, or wanted of a batch, in seconds since the epoch.
    has_result: whether a result came of it, which a retry replaces now.
    """

    digest: bytes
    execution: int
    position: int
    status: int
    packed: bytes
    foreign: bool = False
    source: CallSource = CallSource.LIVE
    started_at: float = 0.0
    has_result: bool = False


PutCalls = Callable[[Sequence[FinishedCall]], "Future[None]"]


class UnrecordedCallError(BaseException):
    """A call was to be replayed, and its reply is not recorded. The row fails, whatever becomes of this error.

    It is no Exception, so that neither clients nor evaluations take it for a failed request and try again.

    difference: how the request differs from what is recorded; the message says only which it is.
    """

    def __init__(self, message: str, difference: str) -> None:
        super().__init__(message)
        self.difference = difference


class RowCalls:
    """The calls of one execution of a row. Safe to use from threads.

    The only call of a row is kept until `close`, so that it is stored together with the result. As soon as the row
    makes another, all are given to `put` when they end. What threads and tasks of the row ask after `close` is not
    stored, and neither is what processes ask that it forks.

    Replayed calls are kept until `close` too. Another process may replay the same ones now, and they are to belong to
    the execution that the result comes of.

    key: makes digests that reveal nothing to those who do not know it.
    put: stores calls; its future is done when they are stored, or cannot be.
    recorded: calls of an earlier execution whose replies may be replayed, in their order.
    rescoring: what the row replays of other evaluations, None if it is not a rescored one.
    parking: of a row in batch mode, else None.
    """

    def __init__(
        self,
        mode: JournalMode,
        execution: int,
        key: bytes,
        put: PutCalls,
        recorded: Iterable[RecordedCall] = (),
        rescoring: Rescoring | None = None,
        parking: Parking | None = None,
    ) -> None:
        self.execution = execution
        self.rescoring = rescoring
        self.parking = parking
        self.recorded = tuple(recorded)
        self.refused: UnrecordedCallError | None = None
        self.keeps_bodies = mode is JournalMode.FULL
        self._key = key
        self._put = put
        self._lock = threading.Lock()
        self._begun = 0
        self._asked = 0
        self._kept: list[FinishedCall] = []
        self._replayed: list[FinishedCall] = []
        # Of streams that the garbage collector ended; it must not wait for the lock.
        self._abandoned: deque[FinishedCall] = deque()
        self._last_put: Future[None] | None = None
        self._closed = False
        self._waits = True
        self._pid = os.getpid()
        self._taken: set[bytes] = set()
        # What this execution has got so far, without the requests.
        self._answered: list[FinishedCall | RecordedCall] = []
        self._chain = RequestChain()
        self._answered_bytes = 0
        # What an execution wants of batches, it wants at one moment.
        self._wanted_last = max(
            (call.started_at for call in self.recorded if call.source is CallSource.BATCH), default=0.0
        )
        self._recorded: dict[bytes, deque[RecordedCall]] = defaultdict(deque)
        for each in self.recorded:
            self._recorded[each.digest].append(each)

    @property
    def is_open(self) -> bool:
        """Whether calls can be noted: the row runs, in this process."""
        return not self._closed and self._pid == os.getpid()

    def digest(self, where: bytes, endpoint: str, body: bytes) -> bytes:
        """The digest of a request: of what it asks, and behind that of where it is sent and with which headers."""
        asked = hashlib.blake2b(endpoint.encode(), key=self._key, digest_size=_ASKED_BYTES)
        asked.update(body)
        return asked.digest() + _digest_of_where(where, self._key)

    def begin(self) -> int:
        """A call begins. Returns its position. The calls before it are on their way to the store now."""
        with self._lock:
            position = self._begun
            self._begun += 1
            if position:
                self._put_kept()
            return position

    @property
    def unstored(self) -> Future[None] | None:
        """Done when all calls that have ended are stored; None if they are, or if the row is not to wait for it."""
        last = self._last_put
        return None if last is None or last.done() or not self._waits else last

    def wait_no_more(self) -> None:
        """The store is away for too long: the row goes on without waiting."""
        self._waits = False

    def take(self, digest: bytes) -> RecordedCall | None:
        """The recorded call with this digest that is next, for one caller; None without one.

        If the row is rescored, the call may have gone to another server: the one of then may be gone.
        """
        if not self._recorded:
            return None
        with self._lock:
            found = self._recorded.get(digest)
            if not found and self.rescoring is not None:
                for key, each in self._recorded.items():
                    if each and _ask_alike(key, digest):
                        found = each
                        break
            if not found:
                return None
            self._taken.add(digest)
            return found.popleft()

    def replay_again(self) -> None:
        """Another try of the row begins: it replays what this execution has got so far."""
        with self._lock:
            answered, self._answered, self._answered_bytes = self._answered, [], 0
            for call in reversed(answered):
                if isinstance(call, FinishedCall):
                    body = CallBody(call.endpoint, call.content_type, "", b"", call.reply)
                    call = RecordedCall(call.digest, self.execution, call.position, call.status, pack(body))
                self._recorded[call.digest].appendleft(call)

    def ask_again(self) -> None:
        """Another try of the row begins: it sends what this execution has sent so far again."""
        with self._lock:
            self._answered, self._answered_bytes = [], 0

    def was_used(self, call: RecordedCall) -> bool:
        """Whether an earlier execution of the row has used this reply of a batch, and then wanted others or ended."""
        return call.has_result or call.started_at < self._wanted_last

    @property
    def sends_new_calls(self) -> bool:
        """Whether calls are sent that are not recorded."""
        return self.rescoring is None or self.rescoring.missing is MissingCalls.LIVE

    def refuse(self, error: UnrecordedCallError) -> None:
        """A call is not recorded and must not be sent: the row has failed."""
        with self._lock:
            self.refused = self.refused or error

    def ended(self, call: FinishedCall) -> None:
        """A call has ended."""
        with self._lock:
            if self._closed:
                return
            if call.digest and 200 <= call.status < 300 and self._answered_bytes < _MOST_ANSWERED_BYTES:
                self._answered.append(replace(call, request=b"") if call.request else call)
                self._answered_bytes += len(call.reply)
            if call.replayed is not None:
                self._replayed.append(replace(call, reply=b""))
                return
            self._asked += 1
            if call.digest and call.request:
                base = self._chain.base_of(call.digest, call.request)
                call = call if base is None else replace(call, base=base)
            self._kept.append(call)
            if self._begun > 1:
                self._put_kept()

    def replayed(self, call: RecordedCall) -> None:
        """A call was answered by a reply that stays in the journal of another evaluation."""
        with self._lock:
            if 200 <= call.status < 300 and self._answered_bytes < _MOST_ANSWERED_BYTES:
                self._answered.append(call)
                self._answered_bytes += len(call.packed)

    def abandoned(self, call: FinishedCall) -> None:
        """The garbage collector has ended a call. It takes no lock."""
        self._abandoned.append(call)

    def close(self, *, has_result: bool) -> tuple[FinishedCall, ...]:
        """The execution has ended. Returns the calls that are to be stored with what became of it.

        has_result: whether that is the result of its row.
        """
        with self._lock:
            self._closed = True
            self._take_abandoned()
            kept, self._kept = tuple(self._kept), []
            replayed, self._replayed = tuple(self._replayed), []
            return (*kept, *replayed) if has_result else kept

    @property
    def differs(self) -> bool:
        """Whether the row has asked something else than in the execution before, so that calls were paid again."""
        # The last execution may have asked the same several times, in several tries of the row.
        if self.rescoring is not None:
            return False
        return self._asked > 0 and any(digest not in self._taken for digest, left in self._recorded.items() if left)

    @property
    def unasked(self) -> int:
        """How many replies of batches this execution has not asked for."""
        return sum(each.source is CallSource.BATCH for left in self._recorded.values() for each in left)

    def _take_abandoned(self) -> None:
        while self._abandoned:
            self._kept.append(self._abandoned.popleft())

    def _put_kept(self) -> None:
        self._take_abandoned()
        if self._kept:
            kept, self._kept = self._kept, []
            self._last_put = self._put(kept)


@functools.lru_cache(maxsize=256)
def _digest_of_where(where: bytes, key: bytes) -> bytes:
    # Nearly all calls of an evaluation go to one place.
    return hashlib.blake2b(where, key=key, digest_size=_WHERE_BYTES).digest()


def _ask_alike(digest: bytes, other: bytes) -> bool:
    """Whether two digests are of calls that ask the same, wherever they are sent."""
    return digest[:_ASKED_BYTES] == other[:_ASKED_BYTES]
