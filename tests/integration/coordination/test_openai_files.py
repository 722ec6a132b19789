"""Batches at a provider, or at a proxy before it, that answers what the API never answers."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from doteval.clients.batch_clients import BatchClient
from doteval.coordination.batches.openai_files import OpenAiBatches
from doteval.coordination.batches.provider import LineReply, ProviderError, ProviderState, UnreadableRepliesError
from doteval.coordination.batches.replies import ReplyReader
from doteval.core.batches import BatchStatus
from doteval.core.prices import PriceTable

KEY = "a-key-of-tests"
PAGE = b"<html>Log in, please</html>"
ANSWER = {"choices": [{"message": {"content": "yes"}}]}


class Handler(BaseHTTPRequestHandler):
    """Answers each path with what the test has put there: a status, a content type and a body."""

    answers: ClassVar[dict[str, tuple[int, str, bytes]]] = {}

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, kind, body = self.answers[f"{self.command} {self.path.partition('?')[0]}"]
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the names of the base class

    def log_message(self, *_: object) -> None:
        """Keep the output of tests clean."""


class Api:
    """A provider whose answers tests choose, and its batches."""

    def __init__(self, url: str, answers: dict[str, tuple[int, str, bytes]]) -> None:
        self._answers = answers
        self.client = BatchClient(url, {"authorization": f"Bearer {KEY}"})
        self.batches = OpenAiBatches(self.client)

    def answers(self, what: str, body: bytes, *, status: int = 200, kind: str = "application/json") -> None:
        self._answers[what] = status, kind, body

    def replies(self, file: bytes, *, answered: int) -> tuple[list[LineReply], str]:
        """What is read of a file of replies, and why that is not all."""
        self.answers("GET /files/output/content", file, kind="application/octet-stream")
        found: list[LineReply] = []
        try:
            for each in self.batches.replies(ProviderState("b", BatchStatus.COMPLETED, answered, ("output",))):
                found.append(each)  # noqa: PERF402 - those before the error are wanted
        except UnreadableRepliesError as error:
            return found, error.message
        return found, ""


@pytest.fixture
def api() -> Iterator[Api]:
    answers: dict[str, tuple[int, str, bytes]] = {}
    handler = type("Scripted", (Handler,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Api(f"http://127.0.0.1:{server.server_port}", answers)
        server.shutdown()
        thread.join()


def line(custom_id: object, body: Any = ANSWER, **more: Any) -> bytes:
    response = {"status_code": 200, "body": body}
    return json.dumps({"custom_id": custom_id, "response": response, "error": None, **more}).encode() + b"\n"


def test_replies_that_only_a_lenient_parser_reads_are_read(api: Api) -> None:
    odd = line("1", {**ANSWER, "text": "\ud83d", "logprob": float("-inf")})
    found, why = api.replies(b"\xef\xbb\xbf" + odd + line("2").rstrip() + b"\r\n" + line(3).rstrip(), answered=3)
    assert ([each.wanted_id for each in found], why) == ([1, 2, 3], "")
    assert json.loads(found[0].content) == {**ANSWER, "text": "\ud83d", "logprob": float("-inf")}


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(PAGE, id="page"),
        pytest.param(line("1")[:30], id="cut"),
        *(pytest.param(each, id=each.decode()) for each in (b"[1]", b"null", b"{}", b'"text"')),
        pytest.param(line("not ours"), id="odd id"),
        pytest.param(line("1", response={"status_code": "abc"}), id="odd status"),
    ],
)
def test_what_is_no_reply_is_not_taken_for_one(api: Api, odd: bytes) -> None:
    found, why = api.replies(line("7") + odd.rstrip(), answered=1)
    assert ([each.wanted_id for each in found], why) == ([7], "1 line of its replies cannot be read")


def test_replies_that_the_provider_counts_and_does_not_send_are_missed(api: Api) -> None:
    assert api.replies(b"", answered=2)[1] == "it has 0 of 2 replies"
    assert api.replies(line("1") + line("1"), answered=2)[1] == ""


def test_errors_of_any_form_are_read(api: Api) -> None:
    error = {"code": "batch_expired", "message": "too late"}
    found, why = api.replies(line("1", response=None, error="odd") + line("2", response=None, error=error), answered=0)
    assert [(each.status, each.code, each.message) for each in found] == [(0, "", "odd"), (0, *error.values())]
    assert why == ""


@pytest.mark.parametrize("body", [PAGE, b'{"id": "ba', b"null", b"{}", b'{"id": 1}', b'{"data": null}'])
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_answers_that_are_no_batches_are_errors_that_may_pass(api: Api, body: bytes, kind: str) -> None:
    batch = json.dumps({"id": "file-1", "object": "file"}).encode()
    for what in ("GET /batches/b", "GET /batches", "POST /batches", "POST /files"):
        api.answers(what, body, kind=kind)

    def send() -> ProviderState:
        return api.batches.send([(1, b"{}")], "/chat/completions", "token", lambda: True)

    # If such a list were one without the batch, this would be sent, and paid, again.
    calls = [lambda: api.batches.state("b"), lambda: api.batches.find("token", 0.0), send]
    for call in calls:
        with pytest.raises(ProviderError, match="the provider's reply cannot be read") as raised:
            call()
        assert not raised.value.is_final
    api.answers("POST /files", batch)
    with pytest.raises(ProviderError, match="cannot be read") as raised:
        send()
    assert not raised.value.is_final


def test_a_batch_is_found_by_its_token(api: Api) -> None:
    found = {"id": "b1", "created_at": 2**40, "status": "in_progress", "metadata": {"doteval": "mine"}}
    api.answers("GET /batches", json.dumps({"object": "list", "data": [found], "has_more": False}).encode())
    assert getattr(api.batches.find("mine", 0.0), "id", None) == "b1"
    assert api.batches.find("other", 0.0) is None


def test_a_file_that_is_too_large_for_a_gateway_is_too_large_for_the_provider(api: Api) -> None:
    api.answers("POST /files", PAGE, status=413, kind="text/html")
    with pytest.raises(ProviderError, match="413") as raised:
        api.batches.send([(1, b"{}")], "/chat/completions", "token", lambda: True)
    assert raised.value.code == "file_too_large"


def test_a_full_disk_is_an_error_that_may_pass(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, _: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(ProviderError, match=r"cannot be written to .*: No space left on device") as raised:
        api.batches.send([(1, b"{}")], "/chat/completions", "token", lambda: True)
    assert not raised.value.is_final


def test_no_message_quotes_the_key(api: Api) -> None:
    error = {"message": f"Incorrect API key provided: {KEY}", "code": "odd"}
    api.answers("GET /batches/refused", json.dumps({"error": error}).encode(), status=401)
    with pytest.raises(ProviderError, match=r"401 Incorrect API key provided: \*\*\*$"):
        api.batches.state("refused")
    failed = {"id": "b", "status": "failed", "errors": {"object": "list", "data": [error]}}
    api.answers("GET /batches/failed", json.dumps(failed).encode())
    assert api.batches.state("failed").message == "Incorrect API key provided: ***"
    reader = ReplyReader(api.client, "m", PriceTable({}, {}))
    (said,), _ = api.replies(line("1", response=None, error=error), answered=0)
    assert reader.reply(said, "/chat/completions") == "Incorrect API key provided: ***"
