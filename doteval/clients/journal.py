"""The request step that notes every call of a row in the call journal, and replays recorded replies.

It goes around all other steps, so that one call is one request of the author's, with the retries that it took. Before
a row's next request is sent, its earlier calls are stored: when its process is killed, a row pays again for the calls
in flight, and for one that had just ended.

Headers and URLs are never kept, and the secrets in them are removed from bodies and errors that quote them.
"""

from __future__ import annotations

import functools

from doteval.clients.bad_replies import is_event_stream, is_json
from doteval.clients.body_secrets import secrets_of_body
from doteval.clients.parking import AskedCall, park, refusal_outside_of_rows
from doteval.clients.reply_events import as_events
from doteval.clients.request_difference import difference
from doteval.clients.request_identity import RequestIdentity
from doteval.clients.steps import ApiCall, Response, Step, content_of
from doteval.clients.streams import StreamObserver
from doteval.core import clocks
from doteval.core.call_bodies import CallBody, restored, unpack
from doteval.core.call_journal import CallSource, FinishedCall, RecordedCall, RowCalls, UnrecordedCallError

# The row goes on without waiting if the store does not take its calls for so long.
_STORED_WITHIN_SECONDS = 5.0
# Larger bodies, of uploads or audio say, are not kept, and not replayed.
_LARGEST_BODY_BYTES = 32 * 1024 * 1024
_OK = 200


def journal_step(step: Step, ignored: frozenset[str] = frozenset()) -> Step:
    """A step around `step`. `ignored`: headers that may differ where a call is replayed, in lower case."""

    async def journal(call: ApiCall) -> Response:
        calls = None if call.meter is None else call.meter.calls
        if calls is None or not calls.is_open:
            refusal = refusal_outside_of_rows(call)
            return await step(call) if refusal is None else refusal
        note = _CallNote(call, calls, ignored)
        parking = calls.parking
        nth = 0 if parking is None else parking.asked(note.digest)
        recorded = calls.take(note.digest)
        if recorded is not None:
            return note.replay(recorded)
        if not calls.sends_new_calls:
            refusal = note.refusal()
            calls.refuse(refusal)
            raise refusal
        if (
            parking is not None
            and call.meter is not None
            and call.meter.parks
            and not parking.is_live(note.digest, nth)
        ):
            return await park(call, parking, note.identity, note.secrets, AskedCall(note.digest, nth, note.position))
        unstored = calls.unstored
        if unstored is not None and calls.keeps_bodies:
            try:
                await call.io.wait(unstored, _STORED_WITHIN_SECONDS)
            except TimeoutError:
                # The writer has logged a warning, and the calls are stored when the store is back.
                calls.wait_no_more()
        try:
            response = await step(call)
        except BaseException as error:
            note.failed(error)
            raise
        if call.streamed and not response.is_closed:
            events = is_event_stream(call, response)
            call.io.observe(response, _ReplyNote(note, response), events=events)
        else:
            note.replied(response, response.content)
        return response

    return journal


class _CallNote:
    """Notes one call when it ends."""

    def __init__(self, call: ApiCall, calls: RowCalls, ignored: frozenset[str]) -> None:
        self._call = call
        self._calls = calls
        self.position = calls.begin()
        self._started_at, self._began = clocks.now(), clocks.perf_counter()
        self.identity = RequestIdentity.of(call.request, ignored)
        self._request = b""
        self._secrets: frozenset[str] | None = None
        self.digest = b""
        if calls.keeps_bodies:
            content = content_of(call.request)
            if content is not None:
                self._request = content
                self.digest = calls.digest(self.identity.parts, self.identity.endpoint, content)

    @property
    def secrets(self) -> frozenset[str]:
        """The secrets that the body holds itself. Calls that are replayed do not need them."""
        if self._secrets is None:
            self._secrets = secrets_of_body(self._call.body, self._request)
        return self._secrets

    def replay(self, recorded: RecordedCall) -> Response:
        """Answer the call by a recorded reply."""
        call, body = self._call, unpack(recorded.packed)
        # A reply of a batch is used by nothing else than this.
        is_of_batch = recorded.source is CallSource.BATCH and not recorded.foreign
        source = CallSource.BATCH if is_of_batch else CallSource.REPLAY
        # Traces count the tokens of a reply once, in the round that it came for.
        call.source = CallSource.REPLAY if self._calls.was_used(recorded) else source
        if recorded.foreign:
            self._calls.replayed(recorded)
        else:
            self._calls.ended(
                FinishedCall(
                    self.digest,
                    self.position,
                    source,
                    call.model,
                    recorded.status,
                    self._started_at,
                    clocks.perf_counter() - self._began,
                    content_type=body.content_type,
                    reply=body.reply,
                    replayed=(recorded.execution, recorded.position),
                    judge=call.judge,
                )
            )
        content_type, reply = body.content_type, body.reply
        if call.body.get("stream") and recorded.status == _OK and is_json(content_type):
            # A batch does not stream.
            content_type, reply = "text/event-stream", as_events(reply, usage=_wants_usage(call))
        return call.io.reply(call.request, {"content-type": content_type}, reply, recorded.status)

    def refusal(self) -> UnrecordedCallError:
        """The error that says which call is not recorded, and how it differs from what is."""
        calls, endpoint = self._calls, self.identity.endpoint
        assert calls.rescoring is not None
        what = ", ".join(part for part in (endpoint, self._call.model) if part)
        message = (
            f"call {self.position + 1} of the row{f' ({what})' if what else ''} has no recorded reply in "
            f"{calls.rescoring.experiment!r}, and was not sent. To send such calls: --missing live"
        )
        if not calls.recorded:
            return UnrecordedCallError(message, "No reply is recorded for this row.")
        asked = CallBody(endpoint, "", "", self.identity.hidden_in(self._request, self.secrets), b"")
        recorded = restored([(each.digest, unpack(each.packed)) for each in calls.recorded])
        differs = difference(asked, recorded, self.position)
        return UnrecordedCallError(message, f"The nearest recorded request (-) and this one (+):\n{differs}")

    def failed(self, error: BaseException) -> None:
        """The call ended without a reply."""
        self._calls.ended(self._finished(0, error=self._described(error)))

    def replied(self, response: Response, content: bytes) -> None:
        """The reply is complete."""
        self._calls.ended(self._of_reply(response, content))

    def cut(self, response: Response, content: bytes, why: str) -> None:
        """The reply was not read to its end."""
        self._calls.ended(self._of_reply(response, content, why))

    def abandoned(self, response: Response, content: bytes) -> None:
        """Nobody will read the rest of the reply. The garbage collector may call this at any moment."""
        self._calls.abandoned(self._of_reply(response, content, "the row did not read the stream to its end"))

    def _of_reply(self, response: Response, content: bytes, error: str = "") -> FinishedCall:
        return self._finished(response.status_code, response.headers.get("content-type", ""), content, error=error)

    def _finished(
        self,
        status: int,
        content_type: str = "",
        reply: bytes = b"",
        *,
        error: str = "",
    ) -> FinishedCall:
        call, hidden = self._call, functools.partial(self.identity.hidden_in, more=self.secrets)
        keeps = self._calls.keeps_bodies
        fits = keeps and len(self._request) + len(reply) <= _LARGEST_BODY_BYTES
        return FinishedCall(
            # Half a reply is not replayed.
            self.digest if fits and not error else b"",
            self.position,
            call.source,
            call.model,
            status,
            self._started_at,
            clocks.perf_counter() - self._began,
            self.identity.endpoint if keeps else "",
            content_type if keeps else "",
            error if keeps else "",
            hidden(self._request) if fits else b"",
            hidden(reply) if fits else b"",
            call.reported,
            judge=call.judge,
        )

    def _described(self, error: BaseException) -> str:
        name = type(error).__name__
        return self.identity.hidden_in_text(f"{name}: {error}" if str(error) else name, self.secrets)


class _ReplyNote(StreamObserver):
    """Collects a streamed reply as the caller reads it."""

    def __init__(self, note: _CallNote, response: Response) -> None:
        self._note = note
        # Not the response itself, which would then never be garbage.
        self._head = _Head(response)
        self._chunks: list[bytes] = []

    def on_chunk(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_end(self) -> None:
        self._note.replied(self._head, b"".join(self._chunks))

    def on_error(self) -> None:
        self._note.cut(self._head, b"".join(self._chunks), "the stream was cut")

    def on_abandoned(self) -> None:
        self._note.abandoned(self._head, b"".join(self._chunks))


class _Head:
    """Status and headers of a response."""

    __slots__ = ("headers", "status_code")

    def __init__(self, response: Response) -> None:
        self.status_code = response.status_code
        self.headers = response.headers


def _wants_usage(call: ApiCall) -> bool:
    options = call.body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))
