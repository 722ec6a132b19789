"""Classifies errors of rows: who caused them, and whether a retry may help."""

from __future__ import annotations

import asyncio
import threading
import traceback
from types import TracebackType

import pytest

from doteval.core.results import ErrorClass, RowError
from doteval.errors import RowTimeoutError

# Frames of a traceback that are kept, counted from where the exception was raised.
_FRAMES = 8
_TRACEBACK_CHARACTERS = 8_000
_MESSAGE_CHARACTERS = 4_000

# Client libraries and the names of their exceptions that mean that a connection failed. They are names, so that no
# library has to be imported to recognise its errors.
_CLIENT_MODULES = ("openai", "anthropic", "httpx", "httpx2", "httpcore", "aiohttp", "requests", "urllib3")
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


def classify(error: BaseException) -> ErrorClass:
    """The class of an exception that a row raised.

    Connection errors, rate limits and server errors are INFRASTRUCTURE, a row timeout is TIMEOUT, and everything
    else is EVALUATION.

    >>> classify(ConnectionResetError()).name
    'INFRASTRUCTURE'
    """
    if isinstance(error, RowTimeoutError):
        return ErrorClass.TIMEOUT
    status = _http_status(error) if _is_client_error(error) else None
    if status is not None:
        retried = status in _RETRIED_HTTP_STATUSES or status >= 500
        return ErrorClass.INFRASTRUCTURE if retried else ErrorClass.EVALUATION
    if isinstance(error, ConnectionError | TimeoutError | asyncio.IncompleteReadError):
        return ErrorClass.INFRASTRUCTURE
    if any(base.__name__ in _CONNECTION_NAMES and _module_root(base) in _CLIENT_MODULES for base in type(error).mro()):
        return ErrorClass.INFRASTRUCTURE
    return ErrorClass.EVALUATION


def describe(error: BaseException, *, prefix: str = "") -> RowError:
    """The exception in the form that the store keeps, with the frames nearest to where it was raised."""
    return RowError(
        type=type(error).__qualname__,
        message=(prefix + _message(error))[:_MESSAGE_CHARACTERS],
        error_class=classify(error),
        traceback=_traceback(error),
    )


def ends_command(error: BaseException) -> bool:
    """Whether an exception ends the whole command: Ctrl-C or pytest.exit, on the main thread.

    On other threads the row has raised it itself, since Ctrl-C reaches only the main thread.
    """
    return (
        isinstance(error, KeyboardInterrupt | pytest.exit.Exception)
        and threading.current_thread() is threading.main_thread()
    )


def is_skip(error: BaseException) -> bool:
    """Whether an exception means that the row is skipped."""
    return isinstance(error, pytest.skip.Exception)


def skip_reason(error: BaseException) -> RowError:
    """The reason of a skipped row, in the form that the store keeps."""
    return RowError(type="Skipped", message=_message(error))


def _message(error: BaseException) -> str:
    try:
        return str(error) or repr(error)
    except Exception as unprintable:  # noqa: BLE001 - an exception may have a __str__ that raises
        return f"<the message cannot be shown: its __str__ raised {type(unprintable).__name__}>"


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
        for name in ("status_code", "status"):
            status = getattr(holder, name, None)
            if isinstance(status, int) and status:
                return status
    return None


def _is_client_error(error: BaseException) -> bool:
    return any(_module_root(base) in _CLIENT_MODULES for base in type(error).mro())


def _module_root(base: type) -> str:
    return base.__module__.partition(".")[0]
