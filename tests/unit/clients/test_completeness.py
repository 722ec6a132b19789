"""Only replies that are complete and have an output are worth keeping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from doteval.clients.cache.completeness import is_worth_keeping


def chat(**message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", **message}}]}


@pytest.mark.parametrize(
    ("reply", "is_kept"),
    [
        (chat(content="ok"), True),
        (chat(content=None, tool_calls=[{"id": "t"}]), True),
        (chat(content=None, refusal="no"), True),
        ({"choices": [{"text": "ok"}]}, True),
        ({"output": [{"type": "message"}], "status": "completed", "error": None}, True),
        ({"data": [{"embedding": [0.5]}]}, True),
        ({"tokens": [1, 2]}, True),
        ({"choices": []}, False),
        ({"choices": None}, False),
        (chat(content=None), False),
        (chat(content="", reasoning_content="hm"), False),
        ({**chat(content="ok"), "error": {"message": "no"}}, False),
        ({"output": [], "status": "completed"}, False),
        ({"output": [{}], "status": "in_progress"}, False),
        ({"data": []}, False),
        ({"results": []}, False),
    ],
)
def test_whole_replies(reply: dict[str, Any], is_kept: bool) -> None:
    assert is_worth_keeping(json.dumps(reply).encode(), events=False) is is_kept


@pytest.mark.parametrize(("content", "is_kept"), [(b'\xef\xbb\xbf{"a": NaN}', True), (b'{"a"', False), (b"", False)])
def test_replies_are_read_as_the_sdk_reads_them(content: bytes, is_kept: bool) -> None:
    assert is_worth_keeping(content, events=False) is is_kept


def delta(**parts: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": parts}]}


COMPLETED = {"type": "response.completed", "response": {"status": "completed", "output": [{"type": "message"}]}}


@pytest.mark.parametrize(
    ("events", "is_kept"),
    [
        ([delta(role="assistant"), delta(content="ok"), "[DONE]"], True),
        ([delta(tool_calls=[{"index": 0}]), "[DONE]"], True),
        ([COMPLETED], True),
        ([delta(content="ok")], False),
        ([delta(role="assistant", content=""), {"choices": [], "usage": {}}, "[DONE]"], False),
        ([delta(content="ok"), {"error": {"message": "boom"}}, "[DONE]"], False),
        ([delta(content="ok"), "no JSON", "[DONE]"], False),
        ([{**COMPLETED, "response": {"status": "completed", "output": []}}], False),
    ],
)
def test_streams(events: list[Any], is_kept: bool) -> None:
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    content = "".join(f"data: {line}\n\n" for line in lines).encode()
    assert is_worth_keeping(content, events=True) is is_kept
