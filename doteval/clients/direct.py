"""Direct calls: async calls whose parameters go straight to aiohttp, and whose bytes go straight to the reply's model.

Most of the processor time of a call in the SDK builds and takes apart objects that are the same for every row:
parameters transformed by type, options, URLs, headers, HTTP requests and responses. Here the SDK builds a request once
for each path; calls take their URL, headers and timeouts from it, and pass the same steps on the same connections.

Only plain calls are made directly: JSON parameters, no options for the single call, no stream. The SDK handles all
others, and replies that do not fit their model, so that errors are the SDK's own.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.request import getproxies

import aiohttp
import orjson
from openai import APIConnectionError, APITimeoutError, AsyncOpenAI
from openai._models import FinalRequestOptions
from openai.resources.chat import AsyncChat, AsyncCompletions
from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import BaseModel, ValidationError
from yarl import URL

from doteval.clients.retries import TRIED_HEADER
from doteval.clients.steps import Step, http_package, send_through_async

_PLAIN = frozenset({str, int, bool, type(None)})
_PARAMETERS = frozenset(CompletionCreateParamsNonStreaming.__annotations__) - {"stream"}
# What the SDK's create() passes, so that it never sends an admin key. openai 2 does not have this option.
_SECURITY = {"security": {"bearer_auth": True}} if "security" in FinalRequestOptions.model_fields else {}
_sdk_logger = logging.getLogger("openai")

# Wrong for a body that aiohttp has decoded already.
_TRANSFER_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def is_plain(value: Any) -> bool:
    """Whether it is a JSON value, made of exactly the types that `json.loads` returns.

    >>> is_plain({"messages": [{"role": "user", "content": "hello"}]}), is_plain({"messages": ("hello",)})
    (True, False)
    """
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is dict:
        # A generator would take longer than the values.
        for name, item in value.items():
            if type(name) is not str or not (type(item) in _PLAIN or is_plain(item)):
                return False
        return True
    if kind is list:
        return all(map(is_plain, value))
    return kind is float and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class _Template:
    """What all requests to one path have in common.

    identities: what steps have worked out of URL and headers; see `doteval.clients.request_identity`.
    """

    url: Any
    address: URL
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout
    base_url: Any
    given_timeout: Any
    identities: dict[frozenset[str], Any] = field(default_factory=dict)


class _Request:
    """The part of an HTTP request that steps use."""

    __slots__ = ("address", "content", "headers", "identities", "method", "timeout", "url")

    def __init__(self, template: _Template, content: bytes) -> None:
        self.method = "POST"
        self.url = template.url
        self.address = template.address
        self.headers = dict(template.headers)
        self.timeout = template.timeout
        self.identities = template.identities
        self.content = content


class _Reply:
    """The part of an HTTP response that steps use. Its body has been read."""

    __slots__ = ("content", "headers", "status_code")

    is_closed = True

    def __init__(self, status_code: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content

    async def aclose(self) -> None:
        """There is nothing to close."""


def _made_reply(_: _Request, headers: dict[str, str], content: bytes, status: int) -> _Reply:
    """A reply that does not come from the server, but from the cache, say."""
    return _Reply(status, headers, content)


SessionOf = Callable[[], Awaitable[aiohttp.ClientSession]]


class DirectCalls:
    """Makes direct calls for one client, through `step` and the aiohttp session of the running loop, `session_of`."""

    def __init__(self, client: AsyncOpenAI, step: Step, session_of: SessionOf) -> None:
        self._client = client
        self._session_of = session_of
        self._package = http_package(client._client)
        self._send = send_through_async(self._post, step, _made_reply)
        self._templates: dict[tuple[str | None, ...], _Template] = {}
        # The SDK handles keys that are fetched or signed, other clouds, and proxies.
        special = ("_provider_runtime", "_workload_identity_auth", "_api_key_provider", "_strict_response_validation")
        self._is_open = not any(getattr(client, name, None) for name in special) and not getproxies()

    @property
    def is_open(self) -> bool:
        """Whether calls of this client may be direct: not if the SDK is to retry itself, or to write its log."""
        return self._is_open and not self._client.max_retries and not _sdk_logger.isEnabledFor(logging.DEBUG)

    def accepts(self, cast_to: Any, body: Any, options: Mapping[str, Any]) -> bool:
        """Whether this call may be direct."""
        return (
            self.is_open
            and options.keys() <= _SECURITY.keys()
            and type(body) is dict
            and (cast_to is object or (isinstance(cast_to, type) and issubclass(cast_to, BaseModel)))
            and is_plain(body)
        )

    async def post(self, path: str, cast_to: Any, body: dict[str, Any], options: Mapping[str, Any]) -> Any:
        """Do what ``client.post`` does: returns the same, raises the same."""
        try:
            content = orjson.dumps(body)
        except TypeError:
            # orjson refuses lone surrogates and integers of more than 64 bits; the SDK sends them.
            return await AsyncOpenAI.post(self._client, path, cast_to=cast_to, body=body, options=cast(Any, options))
        sent = _Request(self._template(path, options), content)
        try:
            reply = await self._send(sent)
        except self._package.TimeoutException as error:
            raise APITimeoutError(request=self._rebuilt(sent, path, body, options)) from error
        except self._package.RequestError as error:
            raise APIConnectionError(request=self._rebuilt(sent, path, body, options)) from error
        if reply.status_code == 200 and reply.headers.get("content-type", "").startswith("application/json"):
            try:
                data = orjson.loads(reply.content)
                if cast_to is object:
                    return data
                model = cast_to.model_validate(data, strict=True)
            except (orjson.JSONDecodeError, ValidationError):
                # The SDK parses leniently, or raises an error that says what is wrong.
                pass
            else:
                # As the SDK sets it, without the look-ups of pydantic's __setattr__.
                object.__setattr__(model, "_request_id", reply.headers.get("x-request-id"))
                return model
        return await self._processed_by_sdk(sent, reply, path, cast_to, body, options)

    async def _post(self, request: _Request) -> _Reply:
        session = await self._session_of()
        try:
            async with session.post(
                request.address, data=request.content, headers=request.headers, timeout=request.timeout
            ) as response:
                return _Reply(response.status, response.headers, await response.read())
        except TimeoutError as error:
            raise self._package.TimeoutException(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._package.NetworkError(str(error)) from error

    def _template(self, path: str, options: Mapping[str, Any]) -> _Template:
        client = self._client
        key = (path, client.api_key, client.organization, client.project)
        template = self._templates.get(key)
        # Authors may change these on a client they have. Compared by identity, which costs less than comparing URLs.
        if (
            template is None
            or template.base_url is not client._base_url
            or template.given_timeout is not client.timeout
        ):
            request = self._built(path, {}, options)
            headers = {
                name: value
                for name, value in request.headers.items()
                # aiohttp sets these itself.
                if name not in ("accept-encoding", "connection", "content-length")
                and (name, value) != ("host", request.url.netloc.decode())
            }
            seconds = request.extensions.get("timeout", {})
            timeout = aiohttp.ClientTimeout(
                sock_connect=seconds.get("connect"), sock_read=seconds.get("read"), connect=seconds.get("pool")
            )
            address = URL(str(request.url), encoded=True)
            template = _Template(request.url, address, headers, timeout, client._base_url, client.timeout)
            self._templates[key] = template
        return template

    def _built(self, path: str, body: dict[str, Any], options: Mapping[str, Any]) -> Any:
        """The request that the SDK would send."""
        return self._client._build_request(_final_options(path, body, options))

    def _rebuilt(self, sent: _Request, path: str, body: dict[str, Any], options: Mapping[str, Any]) -> Any:
        """The request that the SDK would have sent, with the note of the retry step on it."""
        request = self._built(path, body, options)
        if TRIED_HEADER in sent.headers:
            request.headers[TRIED_HEADER] = sent.headers[TRIED_HEADER]
        return request

    async def _processed_by_sdk(
        self, sent: _Request, reply: _Reply, path: str, cast_to: Any, body: dict[str, Any], options: Mapping[str, Any]
    ) -> Any:
        headers = [(name, value) for name, value in reply.headers.items() if name.lower() not in _TRANSFER_HEADERS]
        response = self._package.Response(
            reply.status_code, headers=headers, content=reply.content, request=self._rebuilt(sent, path, body, options)
        )
        if reply.status_code >= 400:
            raise self._client._make_status_error_from_response(response)
        return await self._client._process_response(
            cast_to=cast_to,
            options=_final_options(path, body, options),
            response=response,
            stream=False,
            stream_cls=None,
        )


def _final_options(path: str, body: dict[str, Any], options: Mapping[str, Any]) -> FinalRequestOptions:
    """The options from which the SDK builds the request."""
    given: Any = {"method": "post", "url": path, "json_data": body, **options}
    return FinalRequestOptions.construct(**given)


class DirectChat(AsyncChat):
    """``client.chat`` of a client with direct calls."""

    def __init__(self, client: AsyncOpenAI, direct: DirectCalls) -> None:
        super().__init__(client)
        self._direct = direct

    @functools.cached_property
    def completions(self) -> AsyncCompletions:
        return _DirectCompletions(self._client, self._direct)


_create = AsyncCompletions.create


class _DirectCompletions(AsyncCompletions):
    """Completions that skip the transformation of plain parameters by type, which would change nothing."""

    def __init__(self, client: AsyncOpenAI, direct: DirectCalls) -> None:
        super().__init__(client)
        self._direct = direct

    @functools.wraps(_create)
    async def create(self, **parameters: Any) -> Any:  # type: ignore[override]
        if (
            self._direct.is_open
            # Tracing tools replace the SDK's function; theirs must be called then.
            and AsyncCompletions.create is _create
            and "model" in parameters
            and "messages" in parameters
            and parameters.keys() <= _PARAMETERS
            and is_plain(parameters)
        ):
            return await self._direct.post("/chat/completions", ChatCompletion, parameters, _SECURITY)
        return await super().create(**parameters)
