"""Keys of the reply cache: what makes two requests different, and what does not."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from doteval.clients.cache.keys import cache_key
from doteval.clients.steps import ApiCall

URL = "http://gateway:4000/v1"


REPLY = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": []}


def request_of(extra_headers: dict[str, str] | None = None, **settings: Any) -> Any:
    """The request that the SDK sends for a chat completion."""
    sent = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json=REPLY)

    http_client: Any = httpx2.Client(transport=httpx2.MockTransport(handle))
    client = openai.OpenAI(**{"api_key": "sk-a", "base_url": URL, **settings}, http_client=http_client)
    client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hello"}], temperature=0, extra_headers=extra_headers
    )
    (request,) = sent
    return request


def key_of(request: Any, **more: Any) -> bytes:
    io: Any = None
    return cache_key(ApiCall(io, request, {}), **more)


def key(extra_headers: dict[str, str] | None = None, **settings: Any) -> bytes:
    return key_of(request_of(extra_headers, **settings))


DIFFERENT: dict[str, bytes] = {
    "nothing": key(),
    "a header of the gateway": key(default_headers={"x-provider": "a"}),
    "another value of it": key(default_headers={"x-provider": "b"}),
    "a header of one call": key({"Helicone-Target-Url": "https://example.org"}),
    "a virtual key": key(api_key="sk-b"),
    "a key in a header": key({"x-portkey-virtual-key": "one"}),
    "another key in it": key({"x-portkey-virtual-key": "two"}),
    "the organization": key(organization="org"),
    "the project": key(project="project"),
    "a beta": key({"openai-beta": "assistants=v2"}),
    "a host": key({"host": "provider-b.internal"}),
    "a cookie": key({"cookie": "backend=b"}),
    "a key in the URL": key(default_query={"key": "one"}),
    "another key in the URL": key(default_query={"key": "two"}),
    "the path": key(base_url="http://gateway:4000/v2"),
    "the port": key(base_url="http://gateway:4001/v1"),
    "the scheme": key(base_url="https://gateway:4000/v1"),
    "what the reply may be": key({"accept": "text/plain"}),
}


def test_everything_that_may_choose_another_answer_makes_another_key() -> None:
    same = {
        frozenset({one, other})
        for one, first in DIFFERENT.items()
        for other, second in DIFFERENT.items()
        if one != other and first == second
    }
    assert not same


@pytest.mark.parametrize(
    "header",
    [
        {"User-Agent": "another"},
        {"x-stainless-retry-count": "3"},
        {"X-Stainless-Async": "async:asyncio"},
        {"accept-encoding": "zstd"},
        {"Idempotency-Key": "5"},
        {"x-request-id": "5"},
        {"X-Client-Request-Id": "5"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_headers_of_the_way_a_request_takes_do_not_count(header: dict[str, str]) -> None:
    assert key(header) == key()


def test_the_case_of_names_and_the_order_of_headers_do_not_count() -> None:
    one = key({"X-Provider": "a", "x-region": "eu"})
    assert one == key({"x-region": "eu", "x-provider": "a"})
    assert one != key({"x-region": "a", "x-provider": "eu"})


def test_a_server_behind_a_local_port_is_the_same_on_another_port() -> None:
    header = {"x-doteval-server": "the command"}
    one, other = (key(header, base_url=f"http://127.0.0.1:{port}/v1") for port in (4000, 4001))
    assert one == other
    assert one != key({"x-doteval-server": "another command"}, base_url="http://127.0.0.1:4000/v1")


def test_headers_that_the_author_names_do_not_count() -> None:
    requests = [request_of(api_key=name) for name in ("token-1", "token-2")]
    one, other = (key_of(request, ignored={"authorization"}) for request in requests)
    assert one == other
    assert one != key_of(requests[0])
