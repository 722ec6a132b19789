"""Classifies errors of rows: who caused them, and whether a retry may help.

An error often hides the one that matters: asyncio's TaskGroup raises an exception group, and code between the row and
the client raises an error of its own ``from`` the client's. Such an error has the class, type and message of what it
hides. Causes that Python records automatically (``__context__``) do not count, because they need not be why.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple

import pytest

from doteval.clients.retries import SDK_RETRIES_HEADER, TRIED_HEADER
from doteval.core.error_leaves import chain, in_one_line, leaves, message_of
from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors
from doteval.core.results import ErrorClass, RowError
from doteval.errors import DotEvalError, RowTimeoutError

# Frames of a traceback that are kept, counted from where the exception was raised.
_FRAMES = 8
_TRACEBACK_CHARACTERS = 8_000
_MESSAGE_CHARACTERS = 4_000
# How many errors of a group are named beside the first.
_OTHERS = 3

_NEEDS_MAIN_THREAD = (
    "Only sync rows that run one at a time run on the main thread: write the evaluation with `def`, and with "
    "concurrency=1 in its decorator."
)

# Client libraries and the names of their exceptions that mean that a connection failed. They are names, so that no
# library has to be imported to recognise its errors.
_CLIENT_MODULES = ("openai", "anthropic", "httpx", "httpx2", "httpcore", "aiohttp", "requests", "urllib", "urllib3")
_CONNECTION_NAMES = frozenset(
    {
        "APIConnectionError",
        "APITimeoutError",
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        "HTTPError",
        "InternalServerError",
        "RateLimitError",
        "RequestError",
        "ServerTimeoutError",
        "Timeout",
        "TransportError",
    }
)
_RETRIED_HTTP_STATUSES = frozenset({408, 409, 425, 429})


# The error of a group that a retry helps least comes first: it decides about the group.
_DECIDES = (ErrorClass.QUOTA, ErrorClass.EVALUATION, ErrorClass.TIMEOUT, ErrorClass.INFRASTRUCTURE)


def classify(error: BaseException) -> ErrorClass:
    """The class of an exception that a row raised.

    Connection errors, rate limits and server errors are INFRASTRUCTURE, a row timeout is TIMEOUT, an account without
    money is QUOTA, and everything else is EVALUATION. An exception group is INFRASTRUCTURE if all errors in it are.

    >>> classify(ConnectionResetError()).name
    'INFRASTRUCTURE'
    >>> classify(ExceptionGroup("tasks", [ConnectionResetError(), ValueError()])).name
    'EVALUATION'
    """
    return _hidden(error)[0].decides_as


def may_be_tried_again(error: BaseException) -> bool:
    """Whether another attempt of the row may help: after infrastructure errors that no client has tried again itself.

    A request that its client has repeated would otherwise be repeated as often in each attempt of the row.
    """
    hidden = _hidden(error)
    return hidden[0].decides_as is ErrorClass.INFRASTRUCTURE and not any(
        _was_tried_again(link) for each in hidden for link in chain(each.error)
    )


def describe(error: BaseException, *, prefix: str = "") -> RowError:
    """The exception in the form that the store keeps, with the frames nearest to where it was raised.

    The type and the message are those of the error that decides about the class; the message ends with what else was
    raised.
    """
    first, *others = _hidden(error)
    return RowError(
        type=type(first.error).__qualname__,
        message=(prefix + message_of(first.error) + _remedy(first.error) + _notes(error, first, others))[
            :_MESSAGE_CHARACTERS
        ],
        error_class=first.decides_as,
        traceback=_traceback(error),
    )


# Whether this process ends with the command of a user, as plain pytest does, and not with its rows.
_has_user = True


def survive_rows() -> None:
    """Have this process survive whatever a row raises: no Ctrl-C reaches a worker process as an exception."""
    global _has_user
    _has_user = False


def ends_command(error: BaseException) -> bool:
    """Whether an exception ends the whole command: Ctrl-C or pytest.exit, on the main thread.

    On other threads the row has raised it itself, since Ctrl-C reaches only the main thread.
    """
    return _has_user and isinstance(error, KeyboardInterrupt | pytest.exit.Exception) and _on_main_thread()


def is_skip(error: BaseException) -> bool:
    """Whether an exception means that the row is skipped. Of a group, all errors have to."""
    return all(isinstance(leaf, pytest.skip.Exception) for leaf in leaves(error))


def skip_reason(error: BaseException) -> RowError:
    """The reason of a skipped row, in the form that the store keeps."""
    return RowError(type="Skipped", message=message_of(leaves(error)[0]))


class _Hidden(NamedTuple):
    """An error that another one stands for, and its class, None if that is not certain."""

    error: BaseException
    error_class: ErrorClass | None

    @property
    def decides_as(self) -> ErrorClass:
        return self.error_class or ErrorClass.EVALUATION


def _hidden(error: BaseException, seen: frozenset[int] = frozenset()) -> list[_Hidden]:
    """The errors that an error stands for, the one that decides about its class first. Never empty.

    `seen`: the ids of groups that are not looked into again, since an error may be raised from the group that has it.
    """
    found = [each for leaf in leaves(error) for each in _behind(leaf, seen)]
    return sorted(found, key=lambda each: _DECIDES.index(each.decides_as))


def _behind(error: BaseException, seen: frozenset[int]) -> list[_Hidden]:
    """The first error in the chain of causes whose class is certain, else the error itself.

    The errors of doteval keep their text, which says what to do.
    """
    found = [_Hidden(error, None)]
    for link in chain(error):
        if isinstance(link, BaseExceptionGroup):
            # The connection errors of several addresses, for example.
            inner = [] if id(link) in seen else _hidden(link, seen | {id(link)})
            if any(each.error_class for each in inner):
                found = inner
            break
        if error_class := _certain_class(link):
            found = [_Hidden(link, error_class)]
            break
    return [_Hidden(error, found[0].error_class)] if isinstance(error, DotEvalError) else found


def _certain_class(error: BaseException) -> ErrorClass | None:
    """The class that the type of an error, or the status that it holds, leaves no doubt about."""
    if isinstance(error, RowTimeoutError):
        return ErrorClass.TIMEOUT
    status = _http_status(error) if _is_client_error(error) else None
    if status == 402 or (status == 429 and _has_no_quota(error)):
        return ErrorClass.QUOTA
    if status is not None:
        retried = status in _RETRIED_HTTP_STATUSES or status >= 500
        return ErrorClass.INFRASTRUCTURE if retried else ErrorClass.EVALUATION
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror | asyncio.IncompleteReadError):
        return ErrorClass.INFRASTRUCTURE
    if isinstance(error, OSError) and is_lack_of_descriptors(error):
        return ErrorClass.INFRASTRUCTURE
    if any(base.__name__ in _CONNECTION_NAMES and _module_root(base) in _CLIENT_MODULES for base in type(error).mro()):
        return ErrorClass.INFRASTRUCTURE
    return None


def _notes(error: BaseException, first: _Hidden, others: list[_Hidden]) -> str:
    """What the message says beside that of the first error: what it was raised as, its cause, the other errors."""
    shown, notes = first.error, []
    if error is not shown and not isinstance(error, BaseExceptionGroup):
        notes.append(f"raised as {in_one_line(error)}")
    # A cancellation is how a timeout works, not why it happened.
    *_, last = (link for link in chain(shown) if link is shown or not isinstance(link, asyncio.CancelledError))
    # doteval's own errors say all that matters themselves.
    if last is not shown and not isinstance(shown, DotEvalError) and message_of(last) not in message_of(shown):
        notes.append(f"caused by {in_one_line(last)}")
    also = dict.fromkeys(in_one_line(other.error) for other in others)
    also.pop(in_one_line(shown), None)
    if also:
        notes.append("also " + "; ".join(list(also)[:_OTHERS]) + ("; ..." if len(also) > _OTHERS else ""))
    return f" ({'; '.join(notes)})" if notes else ""


def _remedy(error: BaseException) -> str:
    """What to do about spent file descriptors, and where signal handlers and alarms do not work: on other threads."""
    if not isinstance(error, DotEvalError) and is_lack_of_descriptors(error):
        return f". {how_to_raise()}"
    is_pythons = isinstance(error, ValueError | RuntimeError) and "main thread" in message_of(error)
    return f". {_NEEDS_MAIN_THREAD}" if is_pythons and not _on_main_thread() else ""


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _traceback(error: BaseException) -> str:
    frames: TracebackType | None = error.__traceback__
    if frames is None:
        return ""
    try:
        text = "".join(traceback.format_exception(type(error), error, frames, limit=-_FRAMES, chain=True))
    except Exception:  # noqa: BLE001 - formatting calls __str__ and __repr__ of user code
        text = "".join(traceback.format_tb(frames, limit=-_FRAMES))
    return text[-_TRACEBACK_CHARACTERS:]


def _http_status(error: BaseException) -> int | None:
    """The HTTP status of the reply: errors of aiohttp and openai have it, those of others have a response with it."""
    for holder in (error, getattr(error, "response", None)):
        # urllib calls it `code`, which openai's errors use for a word.
        for name in ("status_code", "status", "code"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and status:
                return status
    return None


def _was_tried_again(error: BaseException) -> bool:
    """Whether the client that raised the error has tried as often as it would, or its server says not to."""
    try:
        request = getattr(error, "request", None)
    except RuntimeError:
        # httpx raises it if an error has no request.
        return False
    sent, received = (_headers(holder) for holder in (request, getattr(error, "response", None)))
    repeated = sent.get(SDK_RETRIES_HEADER) not in (None, "0")
    return repeated or TRIED_HEADER in sent or received.get("x-should-retry") == "false"


def _headers(holder: object) -> Mapping[str, str]:
    headers = getattr(holder, "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def _has_no_quota(error: BaseException) -> bool:
    """Whether a rejection says that the account has no money left: OpenAI's code, which openai's errors have."""
    return "insufficient_quota" in (getattr(error, "code", None), getattr(error, "type", None))


def _is_client_error(error: BaseException) -> bool:
    return any(_module_root(base) in _CLIENT_MODULES for base in type(error).mro())


def _module_root(base: type) -> str:
    return base.__module__.partition(".")[0]
