"""What batch mode needs of a provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from doteval.core.batches import BatchStatus
from doteval.store import BatchCapacity


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A batch as the provider sees it.

    answered: how many of its requests have a reply or an error.
    files: the names of the files with them, once it has ended.
    code, message: why it has failed as a whole.
    """

    id: str
    status: BatchStatus
    answered: int = 0
    files: tuple[str, ...] = ()
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class LineReply:
    """What a batch says of one request, by the id that it was sent with.

    status: the HTTP status, 0 if the request was not executed. content: the body of the reply.
    code, message: why it was not executed.
    """

    wanted_id: int
    status: int
    content: bytes = b""
    code: str = ""
    message: str = ""


class ProviderError(Exception):
    """The provider has refused a request, or could not be reached.

    status: the HTTP status, 0 without one. code: the provider's name of the error, "" without one.
    is_final: whether it would refuse the same again. content: its reply.
    """

    def __init__(
        self, message: str, *, status: int = 0, code: str = "", is_final: bool = False, content: bytes = b""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.is_final = is_final
        self.content = content


class UnreadableRepliesError(ProviderError):
    """Some replies of a batch cannot be read, perhaps because something on the way has cut or replaced them."""


class BatchProvider(Protocol):
    """Sends batches, and reads what became of them. All methods raise ProviderError.

    Messages of errors and states hold no secrets of the client: they are stored, logged and shown.
    """

    @property
    def limits(self) -> BatchCapacity:
        """The most that one batch may hold."""
        ...

    @property
    def lag_seconds(self) -> float:
        """How long a batch may exist before `find` finds it."""
        ...

    def send(
        self, lines: Iterable[tuple[int, bytes]], endpoint: str, token: str, may_begin: Callable[[], bool]
    ) -> ProviderState:
        """Send a batch of request bodies by id. It is sent once at most, and can be found by `token`.

        may_begin: asked last, since an upload may take long; if it says no, there is no batch.
        """
        ...

    def find(self, token: str, age: float) -> ProviderState | None:
        """The batch with a token, made in the last `age` seconds; None if there is none."""
        ...

    def state(self, provider_id: str) -> ProviderState:
        """The state of a batch."""
        ...

    def cancel(self, provider_id: str) -> None:
        """Have a batch stop. It ends a little later, with the replies that it has."""
        ...

    def replies(self, state: ProviderState) -> Iterator[LineReply]:
        """The replies of a batch that has ended, in any order. Memory is bounded.

        Raises UnreadableRepliesError: behind all others, if there are some that cannot be read.
        """
        ...
