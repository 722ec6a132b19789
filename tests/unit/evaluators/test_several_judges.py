"""Judges beyond a single verdict: rubrics, pairs in both orders, and panels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from doteval.core.results import Score
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators import evaluator, exact_match, judge_panel, llm_judge, llm_pairwise, llm_rubric
from doteval.metrics import mean


class Client:
    """A client with the interface of the openai package: `answer` makes a reply of the material to judge."""

    def __init__(self, answer: Callable[[str], str], *, asynchronous: bool = False) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answer = answer
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._later if asynchronous else self._now))

    def _now(self, **request: Any) -> Any:
        self.requests.append(request)
        reply = self._answer(request["messages"][-1]["content"])
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=reply))])

    async def _later(self, **request: Any) -> Any:
        await asyncio.sleep(0)
        return self._now(**request)


def saying(reply: str, *, asynchronous: bool = False) -> Client:
    return Client(lambda _: reply, asynchronous=asynchronous)


RUBRIC = {"tone": "It is polite.", "tone of voice": "It is calm.", "c++?": "It names C++."}


def test_a_rubric_gives_each_criterion_a_score_by_one_call() -> None:
    client = saying("Polite, not calm.\n\nVERDICT tone: yes\n**VERDICT tone of voice: No**\nverdict c++?: yes")
    scores = llm_rubric(client, "judge-1", RUBRIC, options={"seed": 1})("text", question="What?")
    assert [(score.name, score.value) for score in scores] == [
        ("tone", True),
        ("tone of voice", False),
        ("c++?", True),
    ]
    assert scores[0].metadata["judge"] == "judge-1"
    assert scores[0].metric_names == ("accuracy",)
    (request,) = client.requests
    assert request["seed"] == 1
    instructions = request["messages"][0]["content"]
    assert "- tone of voice: It is calm." in instructions
    assert instructions.endswith("VERDICT c++?: yes | no")


def test_a_rubric_of_an_async_client_with_values_and_a_name() -> None:
    client = saying("VERDICT a: good\nVERDICT b: bad", asynchronous=True)
    rubric = llm_rubric(client, "j", {"a": "A.", "b": "B."}, verdicts={"bad": 0, "good": 1}, metrics=mean())
    scores = asyncio.run(rubric("text", name="first"))
    assert [(score.name, score.value, score.metric_names) for score in scores] == [
        ("first.a", 1, ("mean",)),
        ("first.b", 0, ("mean",)),
    ]


def test_a_rubric_without_a_verdict_on_one_of_its_criteria_fails_the_row() -> None:
    rubric = llm_rubric(saying("VERDICT tone: yes\nVERDICT c++?: yes"), "judge-1", RUBRIC)
    with pytest.raises(InvalidResultError, match="judge-1 ends without a verdict on tone of voice"):
        rubric("text")
    with pytest.raises(UsageError, match="at least one criterion"):
        llm_rubric(saying(""), "judge-1", {})


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("answer", "value", "consistent"),
    [
        (lambda material: "VERDICT: first" if "<first>\nmine" in material else "VERDICT: second", 1.0, True),
        (lambda material: "VERDICT: first" if "<first>\ntheirs" in material else "VERDICT: second", 0.0, True),
        (lambda _: "VERDICT: tie", 0.5, True),
        # It prefers a place, and not a response.
        (lambda _: "VERDICT: first", 0.5, False),
        (lambda _: "VERDICT: second", 0.5, False),
        (lambda material: "VERDICT: tie" if "<first>\nmine" in material else "VERDICT: first", 0.5, False),
    ],
)
def test_a_response_wins_only_in_both_orders(
    answer: Callable[[str], str], value: float, consistent: bool, asynchronous: bool
) -> None:
    client = Client(answer, asynchronous=asynchronous)
    found = llm_pairwise(client, "judge-1")("mine", "theirs", question="Who?")
    score = asyncio.run(found) if asynchronous else found
    assert (score.value, score.metadata["consistent"], len(score.metadata["replies"])) == (value, consistent, 2)
    assert (score.name, score.metric_names) == ("llm_pairwise", ("mean",))
    places = {request["messages"][-1]["content"].index("mine") for request in client.requests}
    assert len(client.requests) == len(places) == 2


def judges(*verdicts: str, asynchronous: bool = False) -> list[Any]:
    return [
        llm_judge(saying(f"VERDICT: {verdict}", asynchronous=asynchronous), f"judge-{place}")
        for place, verdict in enumerate(verdicts)
    ]


def test_a_panel_decides_by_majority() -> None:
    score = judge_panel(*judges("yes", "no", "yes"))("text", "expected", question="Q")
    assert (score.name, score.value, score.metric_names) == ("judge_panel", True, ("accuracy",))
    votes = score.metadata["votes"]
    assert [(vote["judge"], vote["value"]) for vote in votes] == [
        ("judge-0", True),
        ("judge-1", False),
        ("judge-2", True),
    ]
    assert votes[1]["reply"] == "VERDICT: no"
    assert (score.metadata["response"], score.metadata["question"], "judge" in score.metadata) == ("text", "Q", False)


def test_a_panel_decides_by_the_mean_and_mixes_sync_and_async_judges() -> None:
    mixed = [*judges("yes", "no", asynchronous=True), *judges("no", "no")]
    score = asyncio.run(judge_panel(*mixed, by="mean")("text", name="panel"))
    assert (score.name, score.value, score.metric_names) == ("panel", 0.25, ("mean",))


def test_a_panel_that_is_divided_fails_the_row() -> None:
    with pytest.raises(InvalidResultError, match="no value has a majority: True, False"):
        judge_panel(*judges("yes", "no"))("text")

    @evaluator
    def wordy(response: str) -> str:
        return response

    with pytest.raises(InvalidResultError, match="no number"):
        judge_panel(wordy, wordy, by="mean")("text")
    rubric = llm_rubric(saying("VERDICT a: yes"), "j", {"a": "A."})
    with pytest.raises(InvalidResultError, match="returned tuple and no score"):
        judge_panel(rubric, rubric)("text")


def test_a_panel_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="at least two judges"):
        judge_panel(exact_match)
    with pytest.raises(UsageError, match="'median'"):
        judge_panel(exact_match, exact_match, by="median")


def test_where_one_judge_fails_the_others_are_called_off() -> None:
    called_off = []

    async def slow(response: str) -> Score:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            called_off.append(response)
            raise
        raise AssertionError

    async def failing(response: str) -> Score:
        await asyncio.sleep(0)
        raise ValueError(response)

    async def ask() -> None:
        with pytest.raises(ValueError, match="text"):
            await judge_panel(slow, failing)("text")
        await asyncio.sleep(0)

    asyncio.run(ask())
    assert called_off == ["text"]
