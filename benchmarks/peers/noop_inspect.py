"""Rows that do nothing, for inspect-ai with its default log."""

import os

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.scorer import Score, accuracy, scorer
from inspect_ai.solver import solver


@solver
def nothing():
    async def solve(state, generate):
        return state

    return solve


@scorer(metrics=[accuracy()])
def ok():
    async def score(state, target):
        return Score(value=1)

    return score


samples = [Sample(input=str(number), target="") for number in range(int(os.environ["ROWS"]))]
(log,) = eval(
    Task(dataset=samples, solver=nothing(), scorer=ok()), model="mockllm/model", log_dir="logs", display="none"
)
assert log.status == "success"
assert log.results.completed_samples == len(samples)
