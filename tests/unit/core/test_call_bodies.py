"""How the requests and replies of calls are packed."""

from __future__ import annotations

import json
import random

import pytest

from doteval.core.call_bodies import CallBody, RequestChain, pack, restored, unpack

WORDS = [f"{first}{last}" for first in ("ta", "mo", "rel", "sin", "ker") for last in ("de", "ling", "ra", "po", "st")]


def conversation(turns: int) -> list[bytes]:
    """The requests of a conversation of many turns, each with the whole history."""
    chance, messages, requests = random.Random(1), [], []
    for _ in range(turns):
        messages.append({"role": "user", "content": " ".join(chance.choices(WORDS, k=80))})
        requests.append(json.dumps({"messages": messages, "model": "m", "temperature": 0}).encode())
        messages.append({"role": "assistant", "content": " ".join(chance.choices(WORDS, k=80))})
    return requests


def packed(requests: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Digests and packed bodies of calls, one after another."""
    chain, found = RequestChain(), []
    for request in requests:
        digest = f"{requests.index(request):16}".encode()
        base = chain.base_of(digest, request)
        found.append((digest, pack(CallBody("/chat/completions", "application/json", "", request, b"{}"), base)))
    return found


def unpacked(calls: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [body.request for body in restored([(digest, unpack(content)) for digest, content in calls])]


def test_a_long_conversation_takes_a_sixth_of_what_its_calls_take_alone() -> None:
    requests = conversation(30)
    calls = packed(requests)
    alone = sum(len(pack(CallBody("/chat/completions", "application/json", "", each, b"{}"))) for each in requests)
    assert sum(len(content) for _, content in calls) < alone / 6
    assert unpacked(calls) == requests
    # Chains are cut, so that a request that is missing takes few with it.
    assert sum(unpack(content).base is None for _, content in calls) == 2


def test_the_order_does_not_matter_nor_does_a_request_that_comes_again() -> None:
    first, second, third = conversation(3)
    requests = [first, second, first, third, second, first]
    calls = packed(requests)
    assert unpacked(calls) == requests
    chance = random.Random(2)
    for _ in range(20):
        order = chance.sample(range(len(calls)), len(calls))
        assert unpacked([calls[each] for each in order]) == [requests[each] for each in order]


def test_a_request_without_its_base_says_so() -> None:
    calls = packed(conversation(4))
    _, second, third, fourth = unpacked([(b"", b"\x01" + calls[0][1][1:]), *calls[1:]])
    assert all(each.startswith(b"...") for each in (second, third, fourth))


def test_other_requests_share_nothing() -> None:
    requests = [b'{"input": "%d"}' % number * 30 for number in range(3)]
    calls = packed(requests)
    assert all(unpack(content).base is None for _, content in calls)
    assert unpacked(calls) == requests


def test_a_damaged_body_is_an_error() -> None:
    content = pack(CallBody("", "", "", b"x" * 300, b""))
    chain = RequestChain()
    chain.base_of(b"d" * 16, b"x" * 300)
    based = pack(CallBody("", "", "", b"x" * 300, b""), chain.base_of(b"e" * 16, b"x" * 300))
    for damaged in (b"\x09" + content[1:], based[:9], content[:1] + b"\xff" * 9):
        with pytest.raises(ValueError, match="the body of a stored call"):
            unpack(damaged)
