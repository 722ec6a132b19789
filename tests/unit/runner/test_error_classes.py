"""Classes of errors, of the real exceptions of the client libraries, which the code under test never imports."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
import requests
import urllib3
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from doteval.core.results import ErrorClass, RowError
from doteval.errors import InvalidResultError, RowTimeoutError
from doteval.runner.error_classes import classify, describe, is_skip, may_be_tried_again, skip_reason
from tests.support.client_errors import (
    REQUEST,
    aiohttp_status,
    caused,
    httpx_status,
    openai_status,
    refused,
    requests_status,
)

INFRASTRUCTURE, EVALUATION = ErrorClass.INFRASTRUCTURE, ErrorClass.EVALUATION

# Whether a retry may help, by HTTP status.
STATUSES = {
    400: EVALUATION,
    401: EVALUATION,
    403: EVALUATION,
    404: EVALUATION,
    408: INFRASTRUCTURE,
    409: INFRASTRUCTURE,
    413: EVALUATION,
    422: EVALUATION,
    425: INFRASTRUCTURE,
    429: INFRASTRUCTURE,
    500: INFRASTRUCTURE,
    502: INFRASTRUCTURE,
    503: INFRASTRUCTURE,
    504: INFRASTRUCTURE,
    520: INFRASTRUCTURE,
    529: INFRASTRUCTURE,
}


@pytest.mark.parametrize("made_by", [openai_status, httpx_status, requests_status, aiohttp_status])
@pytest.mark.parametrize(("status", "expected"), STATUSES.items())
def test_the_status_decides_whether_a_retry_may_help(made_by: Any, status: int, expected: ErrorClass) -> None:
    assert classify(made_by(status)) is expected


KEY = ConnectionKey("server", 80, False, True, None, None, None)

CONNECTIONS: list[BaseException] = [
    openai.APIConnectionError(request=REQUEST),
    openai.APITimeoutError(REQUEST),
    httpx2.ConnectError("x"),
    httpx2.ReadTimeout("x"),
    httpx2.PoolTimeout("x"),
    httpx2.RemoteProtocolError("x"),
    aiohttp.ClientConnectorError(KEY, OSError(111, "refused")),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ServerTimeoutError(),
    aiohttp.ClientPayloadError(),
    aiohttp.ClientOSError(),
    requests.ConnectionError(),
    requests.ReadTimeout(),
    urllib3.exceptions.ProtocolError("x"),
    urllib3.exceptions.MaxRetryError(urllib3.HTTPConnectionPool("server"), "/"),
    ConnectionResetError(),
    BrokenPipeError(),
    TimeoutError(),
    asyncio.IncompleteReadError(b"", 1),
]

MISTAKES: list[BaseException] = [
    openai.APIResponseValidationError(httpx2.Response(200, request=REQUEST), None),
    openai.OpenAIError("no api_key"),
    httpx2.InvalidURL("x"),
    aiohttp.InvalidURL("x"),
    aiohttp.ContentTypeError(RequestInfo(URL(), "GET", CIMultiDictProxy(CIMultiDict()), URL()), (), status=200),
    requests.exceptions.InvalidURL(),
    ValueError(),
    KeyError("status_code"),
    FileNotFoundError(),
    AssertionError(),
    json.JSONDecodeError("x", "", 0),
    InvalidResultError("x"),
    pytest.fail.Exception("x"),
    SystemExit(),
    asyncio.CancelledError(),
]


def name(error: BaseException) -> str:
    return f"{type(error).__module__.partition('.')[0]}.{type(error).__name__}"


@pytest.mark.parametrize("error", CONNECTIONS, ids=name)
def test_failed_connections_are_infrastructure_errors(error: BaseException) -> None:
    assert classify(error) is INFRASTRUCTURE


@pytest.mark.parametrize("error", MISTAKES, ids=name)
def test_everything_else_is_an_evaluation_error(error: BaseException) -> None:
    assert classify(error) is EVALUATION


@pytest.mark.parametrize(
    ("status", "code", "kind", "expected"),
    [
        (402, None, None, ErrorClass.QUOTA),
        (429, "insufficient_quota", "insufficient_quota", ErrorClass.QUOTA),
        (429, None, "insufficient_quota", ErrorClass.QUOTA),
        (429, "rate_limit_exceeded", "tokens", INFRASTRUCTURE),
        (400, "insufficient_quota", None, EVALUATION),
    ],
)
def test_an_account_without_money_has_its_own_class(
    status: int, code: str | None, kind: str | None, expected: ErrorClass
) -> None:
    response = httpx2.Response(status, json={"error": {"message": "no", "code": code, "type": kind}}, request=REQUEST)
    error = openai.OpenAI(api_key="any")._make_status_error_from_response(response)
    assert classify(error) is expected
    # The other errors of a group do not matter then.
    assert classify(ExceptionGroup("tasks", [KeyError(), error])) is (
        ErrorClass.QUOTA if expected is ErrorClass.QUOTA else EVALUATION
    )


def test_a_row_timeout_has_its_own_class() -> None:
    assert classify(RowTimeoutError("x")) is ErrorClass.TIMEOUT


def test_a_subclass_of_a_clients_error_counts_as_that_error() -> None:
    class OwnError(httpx2.ConnectError):
        pass

    assert classify(OwnError("x")) is INFRASTRUCTURE


def test_names_and_statuses_count_only_on_errors_of_clients() -> None:
    class RateLimitError(Exception):
        status_code = 429

    assert classify(RateLimitError()) is EVALUATION


def test_no_client_is_imported_to_recognise_its_errors() -> None:
    code = """
import sys
from doteval.runner.error_classes import classify, describe
describe(ValueError())
print(sorted({"openai", "httpx", "httpx2", "aiohttp", "requests", "anthropic"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180)
    assert done.stdout.strip() == "[]"


def test_a_description_has_the_class_and_where_it_was_raised() -> None:
    try:
        raise httpx2.ConnectError("refused")
    except httpx2.ConnectError as error:
        described = describe(error, prefix="here: ")
    assert (described.type, described.message) == ("ConnectError", "here: refused")
    assert described.error_class is INFRASTRUCTURE
    assert 'raise httpx2.ConnectError("refused")' in described.traceback


def test_an_error_that_was_never_raised_has_no_traceback() -> None:
    assert describe(ValueError("x")).traceback == ""


def test_a_skip_is_no_failure() -> None:
    assert is_skip(pytest.skip.Exception("why"))
    assert not is_skip(pytest.fail.Exception("why"))
    assert (skip_reason(pytest.skip.Exception("why")).type, skip_reason(pytest.skip.Exception("why")).message) == (
        "Skipped",
        "why",
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL),
        lambda: signal.set_wakeup_fd(-1),
        lambda: asyncio.run(_handle_a_signal()),
    ],
    ids=["handler", "wakeup", "loop"],
)
def test_an_error_of_a_row_that_needs_the_main_thread_says_how_to_get_it(call: Any) -> None:
    def row() -> RowError:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever Python says
            return describe(error)
        raise AssertionError("it works in a thread")

    with ThreadPoolExecutor(1) as pool:
        message = pool.submit(row).result().message
    assert message.endswith(
        "main thread of the main interpreter. Only sync rows that run one at a time run on the main thread: write the "
        "evaluation with `def`, and with concurrency=1 in its decorator."
    )
    # On the main thread it is the author's own.
    assert describe(ValueError("no main thread")).message == "no main thread"


async def _handle_a_signal() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)


# Which errors may be tried again by the row.


def sent(**headers: str) -> openai.APIConnectionError:
    """The error of a request that was sent with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return openai.APIConnectionError(request=httpx2.Request("POST", "http://server", headers=named))


def answered(status: int, **headers: str) -> Exception:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx2.Response(status, request=REQUEST, headers=named)
    return openai.OpenAI(api_key="x", base_url="http://server")._make_status_error_from_response(response)


TRIED = {
    "the SDK": sent(x_stainless_retry_count="2"),
    "a client of doteval": sent(x_doteval_tries="7"),
    "a client of doteval that had no time left": sent(x_doteval_tries="1"),
    "a server that says not to": answered(503, x_should_retry="false"),
    "a task": ExceptionGroup("tasks", [refused(), sent(x_stainless_retry_count="1")]),
    "a cause": caused(RuntimeError("the judge failed"), sent(x_doteval_tries="7")),
    "an evaluation error": ValueError("a bug"),
    "a row timeout": RowTimeoutError("the row took longer than 1 s"),
}


@pytest.mark.parametrize("case", TRIED)
def test_what_a_client_has_tried_again_is_not_tried_again_by_the_row(case: str) -> None:
    assert not may_be_tried_again(TRIED[case])


@pytest.mark.parametrize(
    "error",
    [
        refused(),
        sent(x_stainless_retry_count="0"),
        answered(503),
        answered(429, x_should_retry="true"),
        httpx2.ConnectError("it has no request"),
        requests_status(503),
        aiohttp_status(503),
        ExceptionGroup("tasks", [refused(), sent()]),
    ],
    ids=name,
)
def test_what_was_tried_once_may_be_tried_again(error: BaseException) -> None:
    assert may_be_tried_again(error)


def aiohttp_without_descriptors() -> Exception:
    key = ConnectionKey("server", 80, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(24, "Too many open files"))


def openai_without_descriptors() -> Exception:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = httpx2.ConnectError("all attempts failed")
    error.__cause__.__cause__ = OSError(24, "Too many open files")
    return error


@pytest.mark.parametrize(
    "error",
    [OSError(24, "Too many open files", "data.txt"), aiohttp_without_descriptors(), openai_without_descriptors()],
    ids=["open", "aiohttp", "openai"],
)
def test_spent_file_descriptors_are_no_fault_of_the_row(error: Exception) -> None:
    described = describe(error)
    assert described.error_class is INFRASTRUCTURE
    assert "Raise the limit of open files with `ulimit -n`" in described.message


def test_another_error_of_a_file_is_the_rows(tmp_path: Any) -> None:
    described = describe(FileNotFoundError(2, "No such file", str(tmp_path)))
    assert described.error_class is EVALUATION
    assert "ulimit" not in described.message
