"""Batches of the mock server, through the real `openai` client with strict types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from doteval.mock_openai import MockOpenAI
from tests.integration.mock_openai.test_contract import client, strict_client, unknown_fields
from tests.support.openai import mock_openai, mock_openai_process
from tests.support.project import wait_until

__all__ = ["client", "mock_openai", "mock_openai_process", "strict_client"]

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
Lines = list[dict[str, Any]]


def request(custom_id: str, prompt: str = "hello", url: str = CHAT, **body: Any) -> dict[str, Any]:
    field = {"messages": [{"role": "user", "content": prompt}]} if url == CHAT else {"input": prompt}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "gpt-4o", **field, **body}}


def create(client: OpenAI, requests: list[Any], url: str = CHAT, fault: str = "", **more: Any) -> Batch:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in requests]
    file = client.files.create(file=("input.jsonl", "\n".join(lines).encode()), purpose="batch")
    headers = {"x-mock-fault": fault} if fault else {}
    given: Any = {"input_file_id": file.id, "endpoint": url, "completion_window": "24h", **more}
    return client.batches.create(**given, extra_headers=headers)


def ended(client: OpenAI, batch: Batch) -> Batch:
    return wait_until(lambda: now if (now := client.batches.retrieve(batch.id)).status in ENDED else None, seconds=120)


def lines_of(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    lines = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    assert len({line["custom_id"] for line in lines}) == len(lines)
    return {line["custom_id"]: line for line in lines}


@pytest.mark.parametrize("url", [CHAT, "/v1/responses", "/v1/embeddings"])
def test_a_batch_is_answered_as_its_requests_alone_are(url: str, client: OpenAI, mock_openai: MockOpenAI) -> None:
    requests = [request(str(number), f"prompt {number} [[key:row]]", url) for number in range(20)]
    batch = create(client, requests, url, metadata={"row": "1"})
    assert (batch.status, batch.metadata, batch.output_file_id) == ("validating", {"row": "1"}, None)
    batch = ended(client, batch)
    assert not unknown_fields(batch)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 20, "completed": 20, "failed": 0}
    assert (batch.status, batch.error_file_id, batch.model) == ("completed", None, "gpt-4o")
    answers = lines_of(client, batch.output_file_id)
    assert list(answers) != sorted(answers, key=int)
    assert sorted(answers, key=int) == [str(number) for number in range(20)]
    stats = mock_openai.stats()
    assert (stats["requests"], stats["batch"]["requests"], stats["repeated_replies"]) == (0, 20, 0)
    assert stats["keys"] == {"row": {"requests": 20, "replies": 20}}
    assert batch.usage is not None
    assert batch.usage.input_tokens == stats["batch"]["prompt_tokens"] == 60
    alone: Any = client.post(url.removeprefix("/v1"), body=requests[7]["body"], cast_to=object)
    response = answers["7"]["response"]
    assert (response["status_code"], answers["7"]["error"]) == (200, None)
    assert {**response["body"], "id": "", "output": []} == {**alone, "id": "", "output": []}
    assert mock_openai.stats()["repeated_replies"] == 1


def test_requests_that_fail_are_in_the_error_file(client: OpenAI) -> None:
    requests = [request("fine"), request("down", "[[status:500]]"), request("wrong", n=0)]
    requests += [request("lost", "[[line/lost]]"), request("odd", tools=[None])]
    batch = ended(client, create(client, requests))
    assert batch.status == "completed"
    assert set(lines_of(client, batch.output_file_id)) == {"fine"}
    errors = lines_of(client, batch.error_file_id)
    statuses = {name: line["response"]["status_code"] for name, line in errors.items()}
    assert statuses == {"down": 500, "wrong": 400, "odd": 400}
    assert errors["wrong"]["response"]["body"]["error"]["param"] == "n"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 3)


def test_a_share_of_the_requests_fails_and_always_the_same(client: OpenAI, mock_openai: MockOpenAI) -> None:
    failed = []
    for _ in range(2):
        mock_openai.reset()
        requests = [request(str(number), f"share {number}") for number in range(100)]
        batch = ended(client, create(client, requests, fault="line/status:500@0.2"))
        failed.append(set(lines_of(client, batch.error_file_id)))
    assert failed[0] == failed[1]
    assert 8 <= len(failed[0]) <= 35


def test_an_expired_batch_has_a_part_of_the_replies(client: OpenAI) -> None:
    requests = [request(str(number), f"prompt {number}") for number in range(10)]
    batch = ended(client, create(client, requests, fault="batch/expire:0.3"))
    assert (batch.status, batch.completed_at) == ("expired", None)
    assert batch.expired_at is not None
    assert not unknown_fields(batch)
    answers, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert (len(answers), len(errors)) == (3, 7)
    assert not answers.keys() & errors.keys()
    assert {(line["response"], line["error"]["code"]) for line in errors.values()} == {(None, "batch_expired")}


def test_a_window_that_is_over_expires_a_batch() -> None:
    server = MockOpenAI(batch_window=0.5, batch_latency=3600, batch_tokens=100, batch_requests=50)
    with server, OpenAI(base_url=server.base_url, api_key="any") as client:
        first = create(client, [request("1", "word " * 60)])
        limited = ended(client, create(client, [request("1", "word " * 41)]))
        assert errors_of(limited) == [("token_limit_exceeded", None)]
        assert limited.errors is not None
        assert limited.errors.data is not None
        assert "Enqueued token limit reached for gpt-4o" in str(limited.errors.data[0].message)
        first = ended(client, first)
        assert (first.status, len(lines_of(client, first.error_file_id))) == ("expired", 1)
        assert ended(client, create(client, [request("1", "word " * 41)])).status == "expired"
        assert errors_of(ended(client, create(client, [request(str(number)) for number in range(51)])))


def test_a_cancelled_batch_keeps_what_it_has(client: OpenAI) -> None:
    requests = [request(str(number), f"prompt {number}") for number in range(2000)]
    batch = create(client, requests, fault="batch/delay:20")
    wait_until(lambda: (client.batches.retrieve(batch.id).request_counts or batch).completed)  # type: ignore[union-attr]
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch)
    assert (batch.status, batch.completed_at) == ("cancelled", None)
    assert not unknown_fields(batch)
    answers, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert 0 < len(answers) < 2000
    assert len(answers) + len(errors) == 2000
    assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError, match="status 'cancelled'"):
        client.batches.cancel(batch.id)


def errors_of(batch: Batch) -> list[tuple[str | None, int | None]]:
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert not unknown_fields(batch)
    return [(error.code, error.line) for error in (batch.errors and batch.errors.data) or []]


@pytest.mark.parametrize(
    ("requests", "errors"),
    [
        ([], [("empty_file", None)]),
        ([request("1"), "{", "[]"], [("invalid_json_line", 2), ("invalid_json_line", 3)]),
        ([request("1"), request("1")], [("duplicate_custom_id", 2)]),
        ([request("1"), {**request("2"), "url": "/v1/responses"}], [("invalid_url", 2)]),
        ([request("1"), {**request("2"), "method": "GET"}], [("invalid_method", 2)]),
        ([request("1"), request("2", model="other")], [("mismatched_model", 2)]),
        ([request("1"), {"custom_id": "2"}], [("missing_required_parameter", 2)]),
        ([request("1"), {**request("2"), "custom_id": 7}], [("invalid_type", 2)]),
        ([{**request("1"), "body": {"messages": []}}], [("missing_required_parameter", 1)]),
    ],
)
def test_wrong_inputs_fail_the_batch(requests: Lines, errors: list[Any], client: OpenAI) -> None:
    assert errors_of(ended(client, create(client, requests))) == errors


def test_a_fault_makes_a_batch_fail(client: OpenAI) -> None:
    batch = ended(client, create(client, [request("1")], fault="batch/fail"))
    assert errors_of(batch) == [("batch_failed", None)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"completion_window": "1h"}, "Supported values are: '24h'"),
        ({"endpoint": "/v1/audio"}, "Supported values are"),
        ({"input_file_id": "file-1"}, "No such File object"),
        ({"metadata": {"row": 1}}, "expected a string"),
        ({"metadata": {"row": "x" * 513}}, "too long"),
        ({"metadata": {str(number): "" for number in range(17)}}, "too many properties"),
    ],
)
def test_wrong_parameters_are_refused(more: dict[str, Any], message: str, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        create(client, [request("1")], **more)
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.retrieve("batch_1")


def test_batches_are_listed_in_pages(client: OpenAI) -> None:
    made = [create(client, [request("1")]).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=2)][:3] == made[::-1]
    assert [batch.id for batch in client.batches.list(limit=1, after=made[2]).data] == [made[1]]
    for more in ({"limit": 101}, {"after": "batch_1"}):
        with pytest.raises(openai.BadRequestError):
            client.batches.list(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["upload", "files", "batches"])
def test_requests_to_files_and_batches_fail_on_request(where: str, client: OpenAI) -> None:
    def ask(client: OpenAI, headers: dict[str, str]) -> Any:
        if where == "upload":
            return client.files.create(file=("a.jsonl", b"{}"), purpose="batch", extra_headers=headers)
        return (client.files if where == "files" else client.batches).list(extra_headers=headers)

    with pytest.raises(openai.InternalServerError):
        ask(client, {"x-mock-fault": f"{where}/status:503"})
    with pytest.raises(openai.APIConnectionError):
        ask(client, {"x-mock-fault": f"{where}/hangup"})
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.3), {"x-mock-fault": f"{where}/silent"})
    with pytest.raises(openai.APIResponseValidationError):
        ask(client, {"x-mock-fault": f"{where}/error"})
    assert ask(client, {"x-mock-fault": "embeddings/status:500"})


def test_a_batch_is_created_though_its_reply_is_lost(client: OpenAI) -> None:
    with pytest.raises(openai.APIConnectionError):
        create(client, [request("1")], fault="batches/hangup", metadata={"name": "lost"})
    assert next(iter(client.batches.list())).metadata == {"name": "lost"}


@pytest.fixture
def faulty_uploads() -> Iterator[MockOpenAI]:
    with MockOpenAI(faults=("upload/status:500x2", "batches/delay:0.01")) as server:
        yield server


def test_the_first_uploads_fail(faulty_uploads: MockOpenAI) -> None:
    with OpenAI(base_url=faulty_uploads.base_url, api_key="any", max_retries=2) as client:
        assert ended(client, create(client, [request("1")])).status == "completed"
    stats = faulty_uploads.stats()
    assert stats["kinds"]["files"] == {"requests": 3, "replies": 0}
    assert stats["api_keys"] == {"...any": stats["kinds"]["files"]["requests"] + stats["kinds"]["batches"]["requests"]}


@pytest.mark.slow("batches of some requests; it is the time and the memory that this one is about")
def test_fifty_thousand_requests_in_a_batch(client: OpenAI, mock_openai: MockOpenAI) -> None:
    requests = [request(str(number), f"row {number}") for number in range(50_000)]
    batch = ended(client, create(client, requests))
    assert (batch.status, mock_openai.stats()["batch"]["replies"]) == ("completed", 50_000)
    assert len(client.files.content(str(batch.output_file_id)).text.splitlines()) == 50_000
    batch = ended(client, create(client, [*requests, request("one more")]))
    assert errors_of(batch) == [("too_many_requests", None)]
