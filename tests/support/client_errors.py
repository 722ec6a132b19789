"""Makes the exceptions of the client libraries as the libraries make them."""

from __future__ import annotations

import aiohttp
import httpx2
import openai
import requests
from aiohttp.client_reqrep import RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

REQUEST = httpx2.Request("POST", "http://server/v1/chat/completions")


def openai_status(status: int) -> Exception:
    client = openai.OpenAI(api_key="x", base_url="http://server")
    return client._make_status_error_from_response(httpx2.Response(status, request=REQUEST))


def httpx_status(status: int) -> Exception:
    try:
        httpx2.Response(status, request=REQUEST).raise_for_status()
    except httpx2.HTTPStatusError as error:
        return error
    raise AssertionError(status)


def requests_status(status: int) -> Exception:
    response = requests.Response()
    response.status_code = status
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        return error
    raise AssertionError(status)


def aiohttp_status(status: int) -> Exception:
    url = URL("http://server")
    return aiohttp.ClientResponseError(
        RequestInfo(url, "GET", CIMultiDictProxy(CIMultiDict()), url), (), status=status, message="x"
    )


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    """The error, raised from the first cause, which was raised from the second, and so on."""
    link = error
    for cause in causes:
        link.__cause__ = cause
        link = cause
    return error


def refused() -> ConnectionRefusedError:
    return ConnectionRefusedError(111, "Connection refused")
