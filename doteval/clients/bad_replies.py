"""Recognizes replies that have status 200 and are failures, and turns them into the errors that they are.

Gateways and proxies report failures of the servers behind them this way: as an ``error`` beside or instead of the
output, as an event of a stream, as JSON or a stream that is cut, as a page of HTML. With the status that fits, retries,
rate limits, the cache and the SDK treat them as they treat any other failure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doteval.clients.steps import ApiCall, Response
from doteval.clients.streams import ServerSentEvent, is_done
from doteval.core import lenient_json
from doteval.core.wording import counted

_BAD_GATEWAY = 502
_PAGE_CHARACTERS = 200
_NAMES_SHOWN = 5

# The field of a reply that holds its output, by the end of the path.
_OUTPUTS = {
    "/chat/completions": "choices",
    "/completions": "choices",
    "/responses": "output",
    "/embeddings": "data",
    "/moderations": "results",
}
_STREAMED_OUTPUTS = ("choices", "output")
_LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})

# Parts of the codes and types of errors in the APIs of OpenAI, Anthropic, Google and OpenRouter, in this order.
_STATUSES = (
    ("rate_limit", 429),
    ("too_many_requests", 429),
    ("insufficient_quota", 429),
    ("resource_exhausted", 429),
    ("overloaded", 503),
    ("unavailable", 503),
    ("server_error", 500),
    ("internal", 500),
    ("authentication", 401),
    ("invalid_api_key", 401),
    ("permission", 403),
    ("not_found", 404),
    ("invalid", 400),
    ("badrequest", 400),
    ("context_length", 400),
    ("content_filter", 400),
    ("content_policy", 400),
)
_CODES = ("code", "status", "status_code", "type", "error_type")

_TAG = re.compile(rb"<[^<>]*>")
_CODE_BEGINS = re.compile(rb"<(?:script|style)\b", re.IGNORECASE)
_CODE_ENDS = re.compile(rb"</(?:script|style)\b", re.IGNORECASE)
# Wrong for a body that has been decoded, or replaced.
_BODY_HEADERS = frozenset({"content-encoding", "content-length", "content-type", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class BadReply:
    """The failure that a bad reply stands for.

    status: the HTTP status that fits.
    error: the ``error`` of the reply, with a text as its ``message``.
    """

    status: int
    error: Mapping[str, Any]

    @property
    def message(self) -> str:
        return str(self.error["message"])

    @property
    def content(self) -> bytes:
        """The body of the reply of an API that reports it by its status."""
        return lenient_json.dumps_sorted({"error": self.error})


class StreamCheck:
    """Finds what is wrong with a stream of events, event by event.

    >>> from doteval.clients.streams import events_in
    >>> check = StreamCheck("choices", choices=1)
    >>> [check.fault_in(event, {"choices": []}) for event in events_in(b'data: {"choices": []}\\n\\n')]
    [None]
    >>> check.fault_at_end().message
    'the stream of 1 event was cut: it has no finish_reason and no [DONE]'
    """

    def __init__(self, output: str | None, choices: int) -> None:
        self._output = output
        self._choices = choices
        self._events = 0
        self._finished: set[Any] = set()
        self._complete = False

    def fault_in(self, event: ServerSentEvent, value: Any) -> BadReply | None:
        """Return the fault of an event, None if it has none. `value`: its data, None if they are not JSON."""
        self._events += 1
        if is_done(event):
            self._complete = True
            return None
        if value is None and self._output is not None and event.data != b"null":
            return _no_reply(f"event {self._events} of the stream is not valid JSON")
        if not isinstance(value, dict):
            return None
        fault = _fault_in(value)
        if fault is None and event.name == b"error":
            fault = _fault(value)
        if value.get("type") in _LAST_EVENTS:
            self._complete = True
        for choice in _choices_of(value):
            if choice.get("finish_reason") is not None:
                self._finished.add(choice.get("index"))
        return fault

    def fault_at_end(self) -> BadReply | None:
        """Return the fault of the stream as a whole, now that it has ended, None if it has none."""
        if self._complete or self._output not in _STREAMED_OUTPUTS or len(self._finished) >= self._choices:
            return None
        missing = "no finish_reason and no [DONE]" if self._output == "choices" else "no event that completes it"
        return _no_reply(f"the stream of {counted(self._events, 'event')} was cut: it has {missing}")


def output_field(call: ApiCall) -> str | None:
    """The name under which the reply to a call has its output, None if the path is not known."""
    return _output_of(str(call.request.url.path))


def _output_of(path: str) -> str | None:
    return next((field for end, field in _OUTPUTS.items() if path.endswith(end)), None)


def stream_check(call: ApiCall) -> StreamCheck:
    """The check for the stream that answers a call."""
    choices = call.body.get("n")
    return StreamCheck(output_field(call), choices if isinstance(choices, int) else 1)


def is_event_stream(call: ApiCall, response: Response) -> bool:
    """Whether the SDK reads a reply as server-sent events.

    It does so if the call asked for a stream, whatever type the server names. JSON and HTML are no stream.
    """
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return True
    return bool(call.body.get("stream")) and not is_json(kind) and not kind.startswith("text/html")


def is_json(content_type: str) -> bool:
    """Whether a content type is one that the SDK takes for JSON.

    >>> is_json("application/json; charset=utf-8"), is_json("application/problem+json"), is_json("text/plain")
    (True, True, False)
    """
    return content_type.partition(";")[0].rstrip().endswith("json")


def read_whole(call: ApiCall, headers: Mapping[str, str], content: bytes) -> tuple[Any, BadReply | None]:
    """The JSON value of a successful reply, None if it is no JSON, and what is wrong with the reply.

    Any object is read, because the SDK reads objects whatever type the server names.
    """
    output = output_field(call)
    has_json_type = is_json(headers.get("content-type", ""))
    if output is None and not has_json_type and not content.startswith(b"{"):
        return None, None
    is_checked = output is not None or "model" in call.body
    try:
        reply = lenient_json.loads(content)
    except ValueError as error:
        is_bad = output is not None or (is_checked and has_json_type)
        return None, _no_reply(_unreadable(content, error)) if is_bad else None
    return reply, _fault_of_whole(call, reply, output) if is_checked else None


def _fault_of_whole(call: ApiCall, reply: Any, output: str | None) -> BadReply | None:
    fault = _fault_of_value(reply, output)
    if fault is None and output is not None and call.streamed and call.body.get("stream"):
        return _no_reply("the call asked for a stream, and the reply is not one")
    return fault


def fault_of_reply(reply: Any, endpoint: str) -> BadReply | None:
    """Return the fault of a reply with status 200 to a request that asked for no stream, None if it has none.

    reply: its JSON value. endpoint: the end of the path.
    """
    return _fault_of_value(reply, _output_of(endpoint))


def _fault_of_value(reply: Any, output: str | None) -> BadReply | None:
    if isinstance(reply, dict) and (fault := _fault_in(reply)) is not None:
        return fault
    if output is None:
        return None
    if not isinstance(reply, dict):
        return _no_reply("the reply, with status 200, is JSON, but not an object")
    if reply.get(output) is None:
        names = ", ".join(sorted(reply)[:_NAMES_SHOWN]) or "nothing"
        return _no_reply(f"the reply, with status 200, has no {output!r}; it has {names}")
    return None


def error_response(call: ApiCall, headers: Mapping[str, str], fault: BadReply) -> Response:
    """The response of an API that reports a fault by its status. `headers`: those of the bad reply."""
    lowered = {name.lower(): value for name, value in headers.items()}
    kept = {name: value for name, value in lowered.items() if name not in _BODY_HEADERS}
    if "insufficient_quota" in (fault.error.get("code"), fault.error.get("type")):
        # The header by which OpenAI's API says that trying again does not help.
        kept["x-should-retry"] = "false"
    return call.io.reply(call.request, {**kept, "content-type": "application/json"}, fault.content, fault.status)


def status_error(call: ApiCall, headers: Mapping[str, str], fault: BadReply) -> Exception:
    """The error that the SDK raises for a status, for a fault that shows while the caller reads.

    It is noted in the call for the other steps.
    """
    # Imported where it is needed: the package takes a good part of a second.
    import openai

    kinds: dict[int, type[openai.APIStatusError]] = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        409: openai.ConflictError,
        422: openai.UnprocessableEntityError,
        429: openai.RateLimitError,
    }
    kind = kinds.get(fault.status, openai.InternalServerError if fault.status >= 500 else openai.APIStatusError)
    call.error_status = fault.status
    message = f"Error code: {fault.status} - {fault.message}"
    return kind(message, response=error_response(call, headers, fault), body=dict(fault.error))


def _fault_in(reply: dict[str, Any]) -> BadReply | None:
    """The fault that a reply or an event reports, None if it reports none."""
    error = reply.get("error")
    if isinstance(error, dict):
        # Some APIs send the fields of an error, all null, where there is none.
        if any(value is not None for value in error.values()):
            return _fault(error)
    elif error:
        return _fault({**{name: reply[name] for name in _CODES if name in reply}, "message": str(error)})
    if reply.get("object") == "error" or reply.get("type") == "error":
        return _fault(reply)
    for choice in _choices_of(reply):
        if choice.get("error"):
            return _fault_in({"error": choice["error"]})
        if choice.get("finish_reason") == "error":
            return _fault({"message": "the reply has the finish_reason 'error'"})
    if reply.get("status") == "failed":
        return _fault({"message": "the response has the status 'failed'"})
    inner = reply.get("response")
    return _fault_in(inner) if isinstance(inner, dict) else None


def _choices_of(reply: dict[str, Any]) -> list[dict[str, Any]]:
    choices = reply.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _fault(error: Mapping[str, Any]) -> BadReply:
    words = [error.get(name) for name in ("message", "detail", *_CODES)]
    message = next((word for word in words if isinstance(word, str) and word), "an error without a message")
    return BadReply(_status_of(error), {**error, "message": f"{message} (sent with status 200)"})


def _no_reply(message: str) -> BadReply:
    return BadReply(_BAD_GATEWAY, {"message": message})


def _status_of(error: Mapping[str, Any]) -> int:
    codes = [error.get(name) for name in _CODES]
    for code in codes:
        number = int(code) if isinstance(code, str) and code.isdecimal() else code
        if isinstance(number, int) and 400 <= number < 600:
            return number
    words = " ".join(code for code in codes if isinstance(code, str)).lower().replace("-", "_")
    return next((status for part, status in _STATUSES if part in words), _BAD_GATEWAY)


def _unreadable(content: bytes, error: ValueError) -> str:
    if not content.strip():
        return "the reply is empty, with status 200"
    if content.lstrip()[:1] in (b"{", b"["):
        return f"the reply of {len(content):,} bytes, with status 200, is not valid JSON: {error}"
    shown, *others = _CODE_BEGINS.split(content[:100_000])
    # What comes after the end of a script. One that does not end, because the page is cut, is shown.
    rest = (b"<" + _CODE_ENDS.split(each, maxsplit=1)[-1] for each in others)
    text = _TAG.sub(b" ", b"".join([shown, *rest])).decode(errors="replace")
    words = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return f"the reply, with status 200, is no JSON but a page: {words[:_PAGE_CHARACTERS] or 'without text'}"
