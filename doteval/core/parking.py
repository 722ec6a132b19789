"""Parks rows in batch mode: a row whose call has no recorded reply ends, and runs again when the reply is there.

The batch step of the clients (`doteval.clients.parking`) notes what the row wants and raises `Parked`, which passes
through the SDK and ``except Exception``. Code may swallow it all the same, as ``gather(return_exceptions=True)``
does, so it is the flag `Parking.parked` that says whether a row waits, never what came out of its function.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection

from doteval.core.fast_dataclass import row_value

BYTES_PER_TOKEN = 4
"""An estimate for budgets and for limits of providers; JSON has about four characters a token."""


# A BaseException, since it must get past every `except Exception` of the row.
class Parked(BaseException):
    """Ends the execution of a row that waits for the reply of a batch."""


@row_value
class WantedCall:
    """A call that a row waits for, as it is to be sent in a batch.

    digest, nth: what it asks, and how often its execution had asked the same before.
    position: counts the calls of the execution.
    client: identifies the account; see `doteval.clients.batch_clients`.
    endpoint: the end of the path, such as ``/chat/completions``.
    body: the JSON object to send, without what asks for a stream.
    tokens: an estimate of those of the prompt and of the reply.
    inputs: how many texts an embedding is wanted for, else 1.
    judge: whether a judge asks.
    """

    digest: bytes
    nth: int
    position: int
    client: str
    endpoint: str
    model: str
    body: bytes
    tokens: int
    inputs: int = 1
    judge: bool = False


class Parking:
    """What one execution of a row in batch mode wants. Safe to use from threads.

    live: the calls, as digest and number, that are sent at once since no batch has answered them in time.
    """

    def __init__(self, live: Collection[tuple[bytes, int]] = ()) -> None:
        self._live = frozenset(live)
        self._lock = threading.Lock()
        self._asked: Counter[bytes] = Counter()
        self._wanted: list[WantedCall] = []
        self._parked = False

    @property
    def parked(self) -> bool:
        """Whether the row waits for replies, whatever its function has returned or raised."""
        return self._parked

    @property
    def wanted(self) -> tuple[WantedCall, ...]:
        """The calls that the row waits for."""
        with self._lock:
            return tuple(self._wanted)

    def asked(self, digest: bytes) -> int:
        """A call begins. Returns how often this execution has asked the same before."""
        with self._lock:
            nth = self._asked[digest]
            self._asked[digest] += 1
            return nth

    def is_live(self, digest: bytes, nth: int) -> bool:
        """Whether a call is to be sent at once."""
        return (digest, nth) in self._live

    def want(self, call: WantedCall) -> bool:
        """Note a call. False if the row is parked: what it asks now may rest on a call that has no reply."""
        with self._lock:
            if not self._parked:
                self._wanted.append(call)
            return not self._parked

    def park(self) -> None:
        """From now on the row waits, and wants nothing more in this execution."""
        with self._lock:
            self._parked = True
