"""The evaluators `llm_pairwise`, which compares two responses, and `judge_panel`, which asks several judges."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from doteval.core.judging import as_judge
from doteval.core.results import Score
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators.decorator import as_metrics, evaluator
from doteval.evaluators.judge import MATERIAL, VerdictReader, after, ask, reply_of, sections
from doteval.evaluators.judge_types import PairwiseFunction
from doteval.metrics import mean

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

BETTER = "It answers the question better: more correct, more helpful, and no longer than it needs to be."

_WINS, _LOSES, _TIE = 1.0, 0.0, 0.5
_FIRST, _SECOND = "first", "second"


@overload
def llm_pairwise(
    client: OpenAI,
    model: str,
    *,
    criteria: str = ...,
    metrics: Any = ...,
    options: Mapping[str, Any] | None = ...,
) -> PairwiseFunction[Score]: ...
@overload
def llm_pairwise(
    client: AsyncOpenAI,
    model: str,
    *,
    criteria: str = ...,
    metrics: Any = ...,
    options: Mapping[str, Any] | None = ...,
) -> PairwiseFunction[Awaitable[Score]]: ...
@overload
def llm_pairwise(
    client: Any,
    model: str,
    *,
    criteria: str = ...,
    metrics: Any = ...,
    options: Mapping[str, Any] | None = ...,
) -> Callable[..., Any]: ...
def llm_pairwise(
    client: Any,
    model: str,
    *,
    criteria: str = BETTER,
    metrics: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Make an evaluator that asks a model which of two responses is better, once in each order.

    Judges prefer a place, mostly the first. So the same question is asked with the responses exchanged, and a
    response wins only if the judge prefers it in both places; otherwise it is a tie. The score is 1 if `response`
    wins, 0 if `other` wins and 0.5 for a tie; its mean is the win rate::

        score = pairwise(response, baseline_response, question=question)

    The metadata are the judge's model, its replies, and whether both agree (`consistent`): how often they do says how
    far the judge can be trusted. Two calls a row, at once with an async client. The rest is as for `llm_judge`.

    >>> from types import SimpleNamespace as Has
    >>> def create(**request):  # A client asks a model here.
    ...     return Has(choices=[Has(message=Has(content="VERDICT: first"))])
    >>> client = Has(chat=Has(completions=Has(create=create)))
    >>> score = llm_pairwise(client, "judge-1")("Paris", "I do not know", question="The capital of France?")
    >>> score.value, score.metadata["consistent"]  # It preferred whichever came first.
    (0.5, False)
    """
    reader = VerdictReader(model, {_FIRST: _FIRST, _SECOND: _SECOND, "tie": "tie"})
    instructions = (
        "You compare two responses by criteria.\n\n"
        f"The better response is the one that meets the criteria more. Criteria: {criteria}\n\n"
        f"{MATERIAL}\n"
        "Their order means nothing. Reason in a few sentences. Then end with one line of exactly this form, with one "
        f"of the words:\n{reader.line}"
    )

    def score(completions: Sequence[Any]) -> Score:
        replies = [reply_of(completion) for completion in completions]
        preferred, exchanged = map(reader.read, replies)
        mirrored = {_FIRST: _SECOND, _SECOND: _FIRST}.get(exchanged, exchanged)
        consistent = preferred == mirrored
        value = {_FIRST: _WINS, _SECOND: _LOSES}.get(preferred, _TIE) if consistent else _TIE
        return Score("llm_pairwise", value, (), {"judge": model, "replies": replies, "consistent": consistent})

    @evaluator(metrics=mean() if metrics is None else metrics)
    def llm_pairwise(response: str, other: str, question: Any = None, expected: Any = None) -> Any:
        def asked(first: str, second: str) -> Any:
            material = sections(question=question, first=first, second=second, expected=expected)
            return ask(client, model, instructions, material, options)

        return after(_all([lambda: asked(response, other), lambda: asked(other, response)]), score)

    made: Callable[..., Any] = llm_pairwise
    return made


def judge_panel(*judges: Callable[..., Any], by: str = "majority", metrics: Any = None) -> Callable[..., Any]:
    """Make an evaluator that asks several judges, and returns what they say together.

    `judges` are evaluators that take the same arguments, such as several of `llm_judge` with different models::

        panel = judge_panel(llm_judge(client, "model-a"), llm_judge(client, "model-b"), llm_judge(client, "model-c"))
        score = panel(response, question=question, expected=expected)

    `by`: "majority" takes the value that more than half of the judges give, and fails the row if there is none;
    "mean" takes the mean, for numbers and bools. `metrics` are those of the first judge if none are given, for a mean
    `mean`. The metadata hold each judge's value, model and reply. Judges that are async are asked
    at once.

    Raises UsageError if there are fewer than two judges, or for another `by`.

    >>> is_short = evaluator(lambda text: len(text) < 9)
    >>> is_calm = evaluator(lambda text: "!" not in text)
    >>> is_loud = evaluator(lambda text: text.isupper())
    >>> judge_panel(is_short, is_calm, is_loud)("hello").value
    True
    """
    if len(judges) < 2:
        raise UsageError(f"judge_panel needs at least two judges, not {len(judges)}")
    if by not in ("majority", "mean"):
        raise UsageError(f"judge_panel cannot decide by {by!r}", remedy='Give by="majority" or by="mean".')
    given = as_metrics(mean() if metrics is None and by == "mean" else metrics or ())

    def judge_panel(*arguments: Any, name: str | None = None, **named: Any) -> Any:
        def score(scores: Sequence[Any]) -> Score:
            for each in scores:
                if not isinstance(each, Score):
                    raise InvalidResultError(
                        f"a judge of a panel returned {type(each).__qualname__} and no score",
                        remedy="A panel takes evaluators that return one score each, as llm_judge does.",
                    )
            values = [each.value for each in scores]
            value = _majority(values) if by == "majority" else _mean(values)
            judged = {key: value for key, value in scores[0].metadata.items() if key not in _OF_ONE_JUDGE}
            votes = [{"value": each.value, **_of_judge(each)} for each in scores]
            chosen = given or tuple(scores[0].metrics)
            return Score(name or "judge_panel", value, chosen, {**judged, "votes": votes})

        # Judges of other packages do not mark their calls.
        return after(_all([partial(as_judge, partial(judge, *arguments, **named)) for judge in judges]), score)

    return judge_panel


_OF_ONE_JUDGE = ("judge", "reply", "replies", "consistent")


def _of_judge(score: Score) -> dict[str, Any]:
    return {key: score.metadata[key] for key in _OF_ONE_JUDGE if key in score.metadata}


def _majority(values: Sequence[Any]) -> Any:
    # True and 1 are equal and mean the same vote.
    value, votes = Counter(values).most_common(1)[0]
    if 2 * votes <= len(values):
        raise InvalidResultError(
            f"the judges are divided, and no value has a majority: {', '.join(map(repr, values))}",
            remedy='An odd number of judges with two verdicts always has one; by="mean" takes the mean.',
        )
    return value


def _mean(values: Sequence[float]) -> float:
    for value in values:
        if not isinstance(value, bool | int | float) or not math.isfinite(value):
            raise InvalidResultError(f"a judge of the panel gave {value!r}, which is no number, so there is no mean")
    return sum(values) / len(values)


def _all(questions: Sequence[Callable[[], Any]]) -> Any:
    """The answers to all questions, in order; to be awaited if one of them has to be."""
    answers = [question() for question in questions]
    return _gathered(answers) if any(map(inspect.isawaitable, answers)) else answers


async def _gathered(answers: Sequence[Any]) -> list[Any]:
    tasks = [asyncio.ensure_future(_answer(each)) for each in answers]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        # Where one has failed, nobody pays for the others.
        for task in tasks:
            task.cancel()


async def _answer(answer: Any) -> Any:
    return await answer if inspect.isawaitable(answer) else answer
