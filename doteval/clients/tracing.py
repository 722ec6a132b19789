"""The outermost request step: it gives each model call of a traced row a span.

A call that is answered from the reply cache or by a recorded reply says so, and has no usage: nothing was spent on it.
Headers and URLs never get into a span, and prompts and replies only if they were asked for, without the secrets that
the request carries.
"""

from __future__ import annotations

import functools
from typing import Any

from doteval.clients.bad_replies import is_event_stream, is_json
from doteval.clients.body_secrets import secrets_of_body
from doteval.clients.gen_ai import reply_attributes, request_described, usage_attributes
from doteval.clients.gen_ai_messages import input_messages, joined_events, output_messages
from doteval.clients.request_identity import RequestIdentity
from doteval.clients.steps import ApiCall, Response, Step, content_of
from doteval.clients.streams import ServerSentEvent, StreamObserver, events_in, is_done
from doteval.clients.usage_recording import usage_of_reply
from doteval.core import lenient_json
from doteval.core.call_journal import CallSource
from doteval.core.parking import Parked
from doteval.core.tracing import CallSpan

_SOURCE = "doteval.call.source"
# Of the events of a stream, these say how it ended. The first one says which model answers.
_ENDINGS = (b'"finish_reason":"', b'"finish_reason": "', b'"response.completed"', b'"response.incomplete"')
_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def tracing_step(step: Step, ignored: frozenset[str] = frozenset()) -> Step:
    """A step around `step`, which does nothing for rows that are not traced. `ignored`: as for `journal_step`."""

    async def trace(call: ApiCall) -> Response:
        row = None if call.meter is None else call.meter.span
        if row is None:
            return await step(call)
        described = request_described(call)
        span = None if described is None else row.begin_call(*described)
        if span is None:
            return await step(call)
        note = _TracedCall(call, span, ignored, has_content=row.has_content)
        try:
            with span.current():
                response = await step(call)
        except BaseException as error:
            note.raised(error)
            raise
        events = is_event_stream(call, response)
        if call.streamed and not response.is_closed:
            call.io.observe(response, _StreamTrace(note, response, events=events), events=events)
        else:
            content = response.content
            note.replied(
                response.status_code,
                [_loaded(event.data) for event in events_in(content)] if events else [_loaded(content)],
            )
        return response

    return trace


class _TracedCall:
    """Ends the span of one call."""

    def __init__(self, call: ApiCall, span: CallSpan, ignored: frozenset[str], *, has_content: bool) -> None:
        self._call = call
        self._span = span
        self._ignored = ignored
        self.has_content = has_content

    def replied(self, status: int, values: list[Any], error: str | None = None) -> None:
        """The reply has been read. values: its JSON value, or those of its events."""
        attributes = self._attributes()
        if status < 400:
            attributes |= reply_attributes(values)
            attributes |= self._usage(values)
        if self.has_content:
            attributes |= self._content(values)
        status = self._call.error_status or status
        self._span.end(attributes, error or (str(status) if status >= 400 else None))

    def raised(self, error: BaseException) -> None:
        """The call has ended without a reply."""
        attributes = self._attributes()
        if self.has_content:
            attributes |= self._content([])
        if isinstance(error, Parked):
            self._span.end({**attributes, _SOURCE: CallSource.BATCH.value, "doteval.call.waiting": True})
        else:
            self._span.end(attributes, type(error).__qualname__)

    def abandoned(self) -> None:
        """Nobody will read the rest of the reply. The garbage collector may call this at any moment."""
        self._span.end_later(self._attributes(), "abandoned")

    def _attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {_SOURCE: self._call.source.value}
        if self._call.judge:
            attributes["doteval.call.judge"] = True
        if self._call.try_number > 1:
            attributes["doteval.call.tries"] = self._call.try_number
        return attributes

    def _usage(self, values: list[Any]) -> dict[str, Any]:
        reported = self._call.reported
        if self._call.source is CallSource.BATCH:
            found = next((usage for usage in map(usage_of_reply, reversed(values)) if usage is not None), None)
            return {} if found is None else usage_attributes(found)
        if self._call.source is not CallSource.LIVE or reported is None:
            return {}
        return usage_attributes({name: getattr(reported, name) for name in _USAGE})

    def _content(self, values: list[Any]) -> dict[str, str]:
        call = self._call
        identity = RequestIdentity.of(call.request, self._ignored)
        hidden = functools.partial(
            identity.hidden_in_text, more=secrets_of_body(call.body, content_of(call.request) or b"")
        )
        reply = values[0] if len(values) == 1 else joined_events(values)
        found = input_messages(call.body) | output_messages(reply)
        return {name: hidden(text) for name, text in found.items()}


class _StreamTrace(StreamObserver):
    """Collects of a streamed reply what its span shows, as the caller reads it."""

    def __init__(self, note: _TracedCall, response: Response, *, events: bool) -> None:
        self._note = note
        # Not the response itself, which would then never be garbage.
        self._status = response.status_code
        self._keeps_chunks = not events and is_json(response.headers.get("content-type", ""))
        self._chunks: list[bytes] = []
        self._values: list[Any] = []

    def on_chunk(self, chunk: bytes) -> None:
        if self._keeps_chunks:
            self._chunks.append(chunk)

    def on_event(self, event: ServerSentEvent) -> None:
        if is_done(event):
            return
        if self._note.has_content or not self._values or any(sign in event.data for sign in _ENDINGS):
            self._values.append(_loaded(event.data))

    def on_end(self) -> None:
        if self._chunks:
            self._values.append(_loaded(b"".join(self._chunks)))
        self._note.replied(self._status, self._values)

    def on_error(self) -> None:
        self._note.replied(self._status, self._values, "stream_cut")

    def on_abandoned(self) -> None:
        self._note.abandoned()


def _loaded(text: bytes) -> Any:
    """The JSON value of a reply or an event, None if it is not JSON."""
    try:
        return lenient_json.loads(text)
    except ValueError:
        return None
