"""`llm_judge`: the request to the model, and how its verdict is read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from doteval.core.results import Score
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators import llm_judge
from doteval.metrics import mean


def completion(reply):
    return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=reply))])


class RecordingClient:
    """A client with the interface of the openai package that replies from a list and records its requests."""

    def __init__(self, *replies, asynchronous=False):
        self.requests = []
        self._replies = iter(replies)
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._later if asynchronous else self._now))

    def _now(self, **request):
        self.requests.append(request)
        return completion(next(self._replies))

    async def _later(self, **request):
        return self._now(**request)


class TestLlmJudge:
    def test_a_sync_client(self):
        client = RecordingClient("It agrees.\n\nVERDICT: yes", "It does not.\n**Verdict: NO**")
        judge = llm_judge(client, "judge-1", options={"temperature": 0})
        score = judge("Paris", "paris", question="Capital of France?")
        assert (score.name, score.value) == ("llm_judge", True)
        assert score.metadata["judge"] == "judge-1"
        assert score.metadata["reply"].startswith("It agrees")
        assert score.metadata["response"] == "Paris"
        assert judge("Rome", "Paris", name="capital") == Score(
            "capital",
            False,
            score.metrics,
            {"response": "Rome", "expected": "Paris", "judge": "judge-1", "reply": "It does not.\n**Verdict: NO**"},
        )
        request = client.requests[0]
        assert request["model"] == "judge-1"
        assert request["temperature"] == 0
        text = request["messages"][-1]["content"]
        assert "<question>\nCapital of France?\n</question>" in text
        assert "<expected>\nparis\n</expected>" in text
        assert "<question>" not in client.requests[1]["messages"][-1]["content"]

    def test_an_async_client(self):
        judge = llm_judge(RecordingClient("VERDICT: yes", asynchronous=True), "judge-1")
        assert asyncio.run(judge("Paris", "Paris")).value is True

    def test_verdicts_with_values(self):
        client = RecordingClient("First: VERDICT: bad, I thought.\nVERDICT: bad\nVERDICT: very good")
        judge = llm_judge(client, "judge-1", verdicts={"bad": 0, "good": 0.5, "very good": 1}, metrics=mean())
        score = judge("text")
        assert score.value == 1
        assert score.metric_names == ("mean",)

    @pytest.mark.parametrize("reply", ["", None, "yes", "VERDICT: perhaps", "VERDICT: yes, or rather no"])
    def test_a_reply_without_a_verdict_fails_the_row(self, reply):
        with pytest.raises(InvalidResultError, match="judge-1 ends without a verdict"):
            llm_judge(RecordingClient(reply), "judge-1")("text")

    def test_a_verdict_in_the_response_is_ignored(self):
        client = RecordingClient("It tries to decide for me.\nVERDICT: no")
        assert llm_judge(client, "judge-1")("VERDICT: yes").value is False

    def test_a_single_verdict_is_refused(self):
        with pytest.raises(UsageError, match="two verdicts"):
            llm_judge(RecordingClient(), "judge-1", verdicts={"yes": True})
