"""Classes of errors that other exceptions hide: groups, causes and wrappers."""

from __future__ import annotations

import asyncio
import urllib.error
from email.message import Message

import httpx2
import openai
import pytest

from doteval.core.results import ErrorClass
from doteval.errors import ResourceError, RowTimeoutError
from doteval.runner.error_classes import classify, describe, is_skip, skip_reason
from tests.support.client_errors import (
    REQUEST,
    caused,
    openai_status,
    refused,
)

INFRASTRUCTURE, EVALUATION = ErrorClass.INFRASTRUCTURE, ErrorClass.EVALUATION

REFUSED = "[Errno 111] Connection refused"
GROUP = "unhandled errors in a TaskGroup"

HIDDEN: dict[str, tuple[BaseException, ErrorClass, str, str]] = {
    "a group": (ExceptionGroup(GROUP, [refused()]), INFRASTRUCTURE, "ConnectionRefusedError", REFUSED),
    "a group in a group": (
        ExceptionGroup(GROUP, [ExceptionGroup(GROUP, [httpx2.ReadTimeout("slow")])]),
        INFRASTRUCTURE,
        "ReadTimeout",
        "slow",
    ),
    "the same error twice": (
        ExceptionGroup(GROUP, [refused(), refused()]),
        INFRASTRUCTURE,
        "ConnectionRefusedError",
        REFUSED,
    ),
    "a bug beside connection errors": (
        ExceptionGroup(GROUP, [refused(), ValueError("a bug")]),
        EVALUATION,
        "ValueError",
        f"a bug (also ConnectionRefusedError: {REFUSED})",
    ),
    "a refusal beside a rate limit": (
        ExceptionGroup(GROUP, [openai_status(429), openai_status(400)]),
        EVALUATION,
        "BadRequestError",
        "Error code: 400 (also RateLimitError: Error code: 429)",
    ),
    "a timeout beside connection errors": (
        ExceptionGroup(GROUP, [refused(), RowTimeoutError("the row took longer than 1 s")]),
        ErrorClass.TIMEOUT,
        "RowTimeoutError",
        f"the row took longer than 1 s (also ConnectionRefusedError: {REFUSED})",
    ),
    "many errors": (
        ExceptionGroup(GROUP, [ValueError(number) for number in range(9)]),
        EVALUATION,
        "ValueError",
        "0 (also ValueError: 1; ValueError: 2; ValueError: 3; ...)",
    ),
    "a wrapper": (
        caused(RuntimeError("the judge failed"), refused()),
        INFRASTRUCTURE,
        "ConnectionRefusedError",
        f"{REFUSED} (raised as RuntimeError: the judge failed)",
    ),
    "wrappers in a wrapper": (
        caused(KeyError("reply"), ValueError("no reply"), openai_status(503), httpx2.ConnectError("x")),
        INFRASTRUCTURE,
        "InternalServerError",
        "Error code: 503 (raised as KeyError: 'reply'; caused by ConnectError: x)",
    ),
    "a wrapper of a refusal": (
        caused(RuntimeError("the judge failed"), openai_status(401)),
        EVALUATION,
        "AuthenticationError",
        "Error code: 401 (raised as RuntimeError: the judge failed)",
    ),
    "wrappers in a group": (
        ExceptionGroup(GROUP, [caused(RuntimeError("1"), TimeoutError("a")), caused(KeyError("2"), refused())]),
        INFRASTRUCTURE,
        "TimeoutError",
        f"a (also ConnectionRefusedError: {REFUSED})",
    ),
    "a wrapper of a group": (
        caused(OSError("All connection attempts failed"), ExceptionGroup("several", [refused(), TimeoutError("b")])),
        INFRASTRUCTURE,
        "ConnectionRefusedError",
        f"{REFUSED} (raised as OSError: All connection attempts failed; also TimeoutError: b)",
    ),
    "a client's error that says nothing": (
        caused(openai.APIConnectionError(request=REQUEST), httpx2.ConnectError("x"), refused()),
        INFRASTRUCTURE,
        "APIConnectionError",
        f"Connection error. (caused by ConnectionRefusedError: {REFUSED})",
    ),
    "a cause that the message has": (
        caused(httpx2.ConnectError(REFUSED), refused()),
        INFRASTRUCTURE,
        "ConnectError",
        REFUSED,
    ),
    "a timeout of asyncio": (
        caused(TimeoutError("slow"), asyncio.CancelledError()),
        INFRASTRUCTURE,
        "TimeoutError",
        "slow",
    ),
    "an author's error with a cause": (
        caused(ValueError("no answer in the reply"), KeyError("answer")),
        EVALUATION,
        "ValueError",
        "no answer in the reply (caused by KeyError: 'answer')",
    ),
    "an error of doteval": (
        caused(ResourceError("the model is not there", remedy="Start it."), refused()),
        INFRASTRUCTURE,
        "ResourceError",
        "the model is not there\nStart it.",
    ),
    "urllib": (
        urllib.error.URLError(refused()),
        INFRASTRUCTURE,
        "ConnectionRefusedError",
        f"{REFUSED} (raised as URLError: <urlopen error {REFUSED}>)",
    ),
    "a status of urllib": (
        urllib.error.HTTPError("http://server", 503, "busy", Message(), None),
        INFRASTRUCTURE,
        "HTTPError",
        "HTTP Error 503: busy",
    ),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_a_hidden_error_gives_its_class_type_and_message(case: str) -> None:
    error, error_class, name, message = HIDDEN[case]
    described = describe(error)
    assert classify(error) is error_class
    assert (described.error_class, described.type, described.message) == (error_class, name, message)


def test_a_task_groups_error_is_the_tasks() -> None:
    async def row() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())

    async def failing() -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(row())
    described = describe(raised.value)
    assert (described.type, described.message) == ("ConnectionResetError", "gone")
    assert 'raise ConnectionResetError("gone")' in described.traceback


def test_what_python_notes_by_itself_is_no_cause() -> None:
    error = KeyError("a bug in the handler")
    error.__context__ = refused()
    assert describe(error).type == "KeyError"
    assert classify(error) is EVALUATION


def test_an_error_raised_from_its_own_group_is_described() -> None:
    leaf = ValueError("a bug")
    assert describe(caused(leaf, ExceptionGroup("several", [leaf]))).type == "ValueError"
    ring = caused(KeyError("a"), ValueError("b"))
    assert describe(caused(ring, caused(ValueError("b"), ring))).type == "KeyError"


def test_a_group_of_skips_is_a_skip() -> None:
    skip = pytest.skip.Exception("no GPU")
    group = BaseExceptionGroup(GROUP, [skip])
    assert is_skip(group)
    assert skip_reason(group).message == "no GPU"
    assert not is_skip(BaseExceptionGroup(GROUP, [skip, ValueError("a bug")]))
