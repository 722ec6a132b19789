"""One call in each row, for inspect-ai with its OpenAI provider."""

import os

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.solver import generate


@scorer(metrics=[accuracy()])
def has_text():
    async def score(state, target):
        return Score(value=1 if state.output.completion else 0)

    return score


concurrency = int(os.environ["CONCURRENCY"])
samples = [Sample(input=f"number {number}", target="") for number in range(int(os.environ["ROWS"]))]
(log,) = eval(
    Task(dataset=samples, solver=generate(), scorer=has_text()),
    model="openai/gpt-4o",
    max_connections=concurrency,
    max_samples=concurrency,
    log_dir="logs",
    display="none",
)
assert log.status == "success"
