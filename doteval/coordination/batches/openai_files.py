"""Batches as OpenAI has them: a file of requests is uploaded, and a batch is made of it."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import openai
import orjson
from openai import OpenAI
from openai.pagination import SyncCursorPage
from openai.types import Batch, FileObject

from doteval.clients.batch_clients import BatchClient
from doteval.clients.steps import http_package
from doteval.coordination.batches.provider import LineReply, ProviderError, ProviderState, UnreadableRepliesError
from doteval.core import clocks, lenient_json
from doteval.core.batches import BatchStatus
from doteval.core.wording import counted
from doteval.store import BatchCapacity

_Object = TypeVar("_Object", Batch, FileObject)

_UNREADABLE = "the provider's reply cannot be read"
_TOKEN = "doteval"  # noqa: S105 - the name of a field of the metadata
_WINDOW: Literal["24h"] = "24h"
# Of files and new batches, and of everything else.
_TIMEOUT_SECONDS = 120.0
_SHORT_TIMEOUT_SECONDS = 20.0
_PAGE = 100
# The provider's clock may differ, and its times are whole seconds.
_CLOCKS_SECONDS = 3600.0
_STATUSES = {
    "completed": BatchStatus.COMPLETED,
    "failed": BatchStatus.FAILED,
    "expired": BatchStatus.EXPIRED,
    "cancelled": BatchStatus.CANCELLED,
}
_MAY_PASS = frozenset({408, 409, 425, 429})
_CONTENT_TOO_LARGE = 413
_WITHOUT_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# The limits of the API are 50,000 requests or inputs and 200 MB.
_LIMITS = BatchCapacity(requests=50_000, size=190_000_000, inputs=50_000, overhead=120)


class OpenAiBatches:
    """The batches of one account. lag_seconds: how long a new batch may be missing in the list of batches."""

    limits = _LIMITS

    def __init__(self, client: BatchClient, *, lag_seconds: float = 5.0) -> None:
        headers = dict(client.headers)
        scheme, _, key = headers.pop("authorization", "").partition(" ")
        given: dict[str, Any] = headers if scheme == "Bearer" else {**headers, "Authorization": openai.Omit()}
        self.lag_seconds = lag_seconds
        # Some providers quote the key in their errors, which are stored and logged.
        self._identity = client.identity
        self._client = OpenAI(
            base_url=client.base_url,
            api_key=key or "none",
            default_headers=given,
            max_retries=2,
            timeout=_TIMEOUT_SECONDS,
        )
        self._package = http_package(self._client._client)

    def send(
        self, lines: Iterable[tuple[int, bytes]], endpoint: str, token: str, may_begin: Callable[[], bool]
    ) -> ProviderState:
        """See `BatchProvider.send`. The file of a batch that is not made stays at the provider, which costs nothing."""
        with tempfile.TemporaryFile() as file:
            try:
                for wanted_id, body in lines:
                    head = {"custom_id": str(wanted_id), "method": "POST", "url": f"/v1{endpoint}"}
                    file.write(orjson.dumps(head)[:-1] + b',"body":' + body + b"}\n")
                file.seek(0)
            except OSError as error:
                where = tempfile.gettempdir()
                raise ProviderError(f"its file cannot be written to {where}: {error.strerror or error}") from error
            with self._errors():
                name = f"doteval-{token}.jsonl"
                uploaded = _checked(self._client.files.create(file=(name, file), purpose="batch"), FileObject)
        if not may_begin():
            raise ProviderError("another worker process sends the batches of this client now")
        with self._errors():
            # A second try could make a second batch.
            made = self._client.with_options(max_retries=0).batches.create(
                input_file_id=uploaded.id,
                endpoint=f"/v1{endpoint}",  # type: ignore[arg-type] # a literal
                completion_window=_WINDOW,
                metadata={_TOKEN: token},
            )
        return self._state(made)

    def find(self, token: str, age: float) -> ProviderState | None:
        oldest = clocks.now() - age - _CLOCKS_SECONDS
        with self._errors():
            page = _listed(lambda: self._client.batches.list(limit=_PAGE, timeout=_SHORT_TIMEOUT_SECONDS))
            while True:
                for each in page.data:
                    batch = _checked(each, Batch)
                    if (batch.metadata or {}).get(_TOKEN) == token:
                        return self._state(batch)
                    if (batch.created_at or 0) < oldest:
                        return None
                if not page.has_next_page():
                    return None
                page = _listed(page.get_next_page)

    def state(self, provider_id: str) -> ProviderState:
        with self._errors():
            return self._state(self._client.batches.retrieve(provider_id, timeout=_SHORT_TIMEOUT_SECONDS))

    def cancel(self, provider_id: str) -> None:
        with self._errors():
            try:
                self._client.batches.cancel(provider_id, timeout=_SHORT_TIMEOUT_SECONDS)
            except (openai.ConflictError, openai.BadRequestError):
                # It has ended meanwhile.
                return

    def replies(self, state: ProviderState) -> Iterator[LineReply]:
        held = unreadable = 0
        for file in state.files:
            with self._errors(), self._client.files.with_streaming_response.content(file) as response:
                for text in _lines(response.iter_bytes()):
                    line = _line(text)
                    if line is not None:
                        held += 1
                        yield line
                    elif text.strip():
                        unreadable += 1
        if unreadable:
            raise UnreadableRepliesError(f"{counted(unreadable, 'line')} of its replies cannot be read")
        if held < state.answered:
            raise UnreadableRepliesError(f"it has {held} of {counted(state.answered, 'reply', 'replies')}")

    def _state(self, reply: object) -> ProviderState:
        batch = _checked(reply, Batch)
        errors = (batch.errors.data if batch.errors is not None else None) or []
        counts = batch.request_counts
        return ProviderState(
            batch.id,
            _STATUSES.get(batch.status, BatchStatus.RUNNING),
            0 if counts is None else (counts.completed or 0) + (counts.failed or 0),
            tuple(each for each in (batch.output_file_id, batch.error_file_id) if each),
            next((each.code for each in errors if each.code), ""),
            self._identity.hidden_in_text("; ".join(str(each.message) for each in errors[:3])),
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the SDK into ProviderError."""
        try:
            yield
        except openai.APIStatusError as error:
            status = error.status_code
            passes = (status in _MAY_PASS or status >= 500) and error.code not in _WITHOUT_MONEY
            message = f"the provider refused: {status} {self._identity.hidden_in_text(_said(error))}"
            # Gateways name no code.
            code = error.code or ("file_too_large" if status == _CONTENT_TOO_LARGE else "")
            raise ProviderError(
                message, status=status, code=code, is_final=not passes, content=error.response.content
            ) from error
        except (openai.APIError, self._package.HTTPError) as error:
            raise ProviderError(f"the provider cannot be reached: {type(error).__name__}") from error
        except ValueError as error:
            raise ProviderError(f"{_UNREADABLE}: it is not JSON") from error


def _checked(reply: object, kind: type[_Object]) -> _Object:
    """A reply of the provider. Raises ProviderError: it is something else, such as the page of a proxy.

    The SDK returns what is no JSON as text, and does not check what is.
    """
    if not isinstance(reply, kind) or not isinstance(getattr(reply, "id", None), str):
        raise ProviderError(f"{_UNREADABLE}: it is no {kind.__name__}")
    return reply


def _listed(get: Callable[[], SyncCursorPage[Batch]]) -> SyncCursorPage[Batch]:
    """A page of batches. Raises ProviderError: the reply is none.

    It would read as a list without the batch that is looked for, which would then be sent again.
    """
    try:
        page = get()
    except AttributeError as error:
        # The SDK (openai 3.57) raises it for a reply that is no JSON object.
        raise ProviderError(f"{_UNREADABLE}: it is no list of batches") from error
    if not isinstance(getattr(page, "data", None), list):
        raise ProviderError(f"{_UNREADABLE}: it is no list of batches")
    return page


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or type(error).__name__)[:300]


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines, which end with a newline only; texts may hold other characters that Python takes for the end of one."""
    rest: list[bytes] = []
    chunks = _without_mark(chunks)
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield b"".join((*rest, line))
            rest = []
        rest.append(last)
    yield b"".join(rest)


def _without_mark(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes without the byte order mark that some tools put before a text."""
    begin = b""
    rest = iter(chunks)
    for chunk in rest:
        begin += chunk
        if len(begin) >= len(codecs.BOM_UTF8):
            break
    yield begin.removeprefix(codecs.BOM_UTF8)
    yield from rest


def _line(line: bytes) -> LineReply | None:
    """What a line says of a request; None if it cannot be read."""
    try:
        found, dumps = lenient_json.loads_to_write(line)
        wanted_id = int(found["custom_id"])
        response, error = found.get("response"), found.get("error")
        status = int(response.get("status_code") or 0) if isinstance(response, dict) else 0
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if status:
        return LineReply(wanted_id, status, dumps(response.get("body")))
    said = error if isinstance(error, dict) else {"message": error}
    return LineReply(wanted_id, 0, code=str(said.get("code") or ""), message=str(said.get("message") or ""))
