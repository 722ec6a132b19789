"""Rows that run again in one process: those that failed ask anew, or replay their calls if the user asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tenacity

from doteval import Score, foreach, run
from doteval.clients.openai import async_openai_client, openai_client
from doteval.errors import UsageError
from doteval.mock_openai import MockOpenAI
from doteval.store import Store
from tests.support.client_calls import ask, settings

broken = True


def made() -> Callable[..., Any]:
    @foreach("number", [(0,), (1,)])
    def eval_it(number: int, client: Any) -> Score:
        for step in range(3):
            ask(client, f"{number} {step}", temperature=None)
        if broken and number:
            raise KeyError("a mistake in the evaluation")
        return Score("ok", True, [])

    return eval_it


@pytest.fixture
def failed(mock_openai: MockOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of a run of which one row has failed after three calls."""
    monkeypatch.chdir(tmp_path)
    given = {"experiment": "x", "storage": f"{tmp_path}/x.db", "client": openai_client(**settings(mock_openai))}
    assert run(made(), **given).counts.failed == 1
    assert mock_openai.stats()["requests"] == 6
    monkeypatch.setattr(f"{__name__}.broken", False)
    return given


@pytest.mark.parametrize(("replay", "sent"), [(False, 9), (True, 6)])
def test_failed_rows_replay_their_calls_if_asked_to(
    mock_openai: MockOpenAI, failed: dict[str, Any], replay: bool, sent: int
) -> None:
    assert run(made(), replay=replay, **failed).counts.done == 2
    assert mock_openai.stats()["requests"] == sent
    with Store.open(failed["storage"]) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        calls = store.calls.of_row(evaluation.id, 1)
    # The calls of the failed attempt are kept beside those of a new one.
    assert [call.source for call in calls] == (["replay"] * 3 if replay else ["live"] * 6)
    assert len({call.execution for call in calls}) == (1 if replay else 2)


@pytest.mark.parametrize(
    ("error", "sources"),
    [
        # The replies before it are good.
        (ConnectionResetError("of a database"), ["replay", "replay", "live"]),
        (NameError("a mistake in the code"), ["replay", "replay", "live"]),
        # A reply may be why, as where it is no JSON.
        (ValueError("no number in the reply"), ["live"] * 5),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_another_try_of_a_row_replays_unless_a_reply_may_be_why(
    mock_openai: MockOpenAI, tmp_path: Path, error: Exception, sources: list[str], is_async: bool
) -> None:
    tries: list[int] = []

    def fail_once() -> None:
        tries.append(len(tries))
        if len(tries) == 1:
            raise error

    def eval_sync(number: int, client: Any) -> Score:
        for step in ("first", "second"):
            ask(client, f"{step} {number}", temperature=None)
        fail_once()
        ask(client, f"third {number}", temperature=None)
        return Score("ok", True, [])

    async def eval_async(number: int, client: Any) -> Score:
        for step in ("first", "second"):
            await ask(client, f"{step} {number}", temperature=None)
        fail_once()
        await ask(client, f"third {number}", temperature=None)
        return Score("ok", True, [])

    storage = f"{tmp_path}/x.db"
    make = async_openai_client if is_async else openai_client
    retrying = tenacity.Retrying(stop=tenacity.stop_after_attempt(2))
    function = foreach("number", [(0,)], retries=retrying)(eval_async if is_async else eval_sync)
    results = run(function, "x", storage=storage, client=make(**settings(mock_openai)))
    assert results.counts.done == 1
    assert mock_openai.stats()["requests"] == (3 if "replay" in sources else 5)
    with Store.open(storage) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        assert [call.source for call in store.calls.of_row(evaluation.id, 0)] == sources
        assert evaluation.repaid_rows == 0


@pytest.mark.parametrize(("journal", "stored", "bodies"), [("off", 0, 0), ("usage", 6, 0), ("full", 6, 6)])
def test_the_journal_keeps_what_it_is_asked_to(
    mock_openai: MockOpenAI, tmp_path: Path, journal: str, stored: int, bodies: int
) -> None:
    storage = f"{tmp_path}/x.db"
    run(made(), "x", storage=storage, journal=journal, client=openai_client(**settings(mock_openai)))
    with Store.open(storage) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        calls = [call for index in range(2) for call in store.calls.of_row(evaluation.id, index)]
    assert len(calls) == stored
    assert sum(call.body is not None for call in calls) == bodies
    assert all(call.usage.completion_tokens for call in calls)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="journal is 'all'"):
        run(made(), journal="all", client=None)


# Where authors have secrets, and what must be hidden there.
PLANTED = {
    "header": "sk-planted-0123456789",
    "password of the URL": "planted-password",
    "query": "planted-query",
    "cookie": "planted-cookie",
    "authorization of a tool": "planted-authorization",
    "header of a tool": "planted-team",
    "query of a tool": "planted-url-token",
    "field of the body": "planted-body-key",
    "data source": "planted-data-source",
}


def test_planted_secrets_are_in_no_byte_of_the_store(mock_openai: MockOpenAI, tmp_path: Path) -> None:
    tool = {
        "type": "mcp",
        "server_label": "files",
        "server_url": f"https://host/mcp?token={PLANTED['query of a tool']}",
        "authorization": PLANTED["authorization of a tool"],
        "headers": {"x-team": PLANTED["header of a tool"]},
    }
    client = openai_client(
        base_url=mock_openai.base_url.replace("://", f"://me:{PLANTED['password of the URL']}@"),
        api_key=PLANTED["header"],
        default_query={"token": PLANTED["query"]},
        default_headers={"cookie": f"session={PLANTED['cookie']}"},
    )
    body = {
        "api_key": PLANTED["field of the body"],
        "data_sources": [{"parameters": {"authentication": {"type": "api_key", "key": PLANTED["data source"]}}}],
        "tools": [tool],
    }

    @foreach("number", [(0,), (1,)])
    def eval_secret(number: int) -> Score:
        # A server may quote what it got, in its reply or in an error.
        quoted = (f"[[reply:{' '.join(PLANTED.values())}]]", f"[[status:401]] {PLANTED}")[number]
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}], extra_body=body)
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": quoted}], extra_body=body)
        return Score("ok", True, [])

    storage = f"{tmp_path}/x.db"
    with Store.open(storage) as store:
        # As long as it is open, SQLite keeps what was written in its log.
        run(eval_secret, "x", storage=storage)
        assert (tmp_path / "x.db-wal").stat().st_size
        while_open = b"".join(file.read_bytes() for file in tmp_path.glob("x.db*"))
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        bodies = [call.body for index in range(2) for call in store.calls.of_row(evaluation.id, index)]
    content = while_open + b"".join(file.read_bytes() for file in tmp_path.glob("x.db*"))
    assert b"eval_secret" in content
    assert len(bodies) == 4
    everything = repr(bodies).encode() + content
    assert {where for where, planted in PLANTED.items() if planted.encode() in everything} == set()
    assert repr(bodies).count("***") > len(bodies)
