"""Writes logs with inspect-ai, in its own environment: `python inspect_logs.py DIRECTORY`.

`tests.support.foreign_logs` describes the same evaluation.
"""

import sys

from inspect_ai import Epochs, Task
from inspect_ai import eval as run_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Score, accuracy, mean, scorer, std, stderr
from inspect_ai.solver import solver

ANSWERS = {"capital?": "Paris", "2+2": "four", "colour?": "red"}


def answer(messages, *_):
    output = ModelOutput.from_content("mockllm/model", ANSWERS[messages[-1].text])
    output.usage = ModelUsage(
        input_tokens=10, output_tokens=3, total_tokens=18, input_tokens_cache_read=5, reasoning_tokens=1
    )
    return output


@solver
def ask():
    async def solve(state, generate):
        if state.sample_id == 3 and state.epoch == 2:
            raise ValueError("no colour é")
        return await generate(state)

    return solve


@scorer(metrics=[accuracy(), stderr()])
def grade():
    grades = {1: "C", 2: "P", 3: "N"}

    async def score(state, target):
        return Score(value=grades[state.sample_id] if state.epoch == 1 else "I", explanation="why", answer="a")

    return score


@scorer(metrics={"tone": [mean()], "length": [mean(), std()]})
def judge():
    async def score(state, target):
        return Score(value={"tone": 0.5, "length": len(state.output.completion)}, metadata={"by": "rule"})

    return score


@scorer(metrics=[mean()])
def sometimes():
    async def score(state, target):
        return Score.unscored(reason="unclear") if state.sample_id == 2 else Score(value=2)

    return score


dataset = MemoryDataset(
    [
        Sample(input="capital?", target="Paris", id=1, metadata={"topic": "places", "id": "x"}),
        Sample(
            input=[ChatMessageSystem(content="short"), ChatMessageUser(content="2+2")],
            target=["4", "four"],
            id=2,
            metadata={"topic": "sums"},
        ),
        Sample(input="colour?", target="red", id=3, choices=["red", "blue"]),
    ],
    name="questions",
)


def task(**options):
    return Task(dataset=dataset, solver=ask(), scorer=[grade(), judge(), sometimes()], name="questions", **options)


directory = sys.argv[1]
common = {"log_dir": directory, "display": "none", "tags": ["base", "two words"], "metadata": {"run": 7}}
model = get_model("mockllm/model", custom_outputs=answer)
run_eval(task(epochs=Epochs(2, "mean")), model=model, log_format="eval", fail_on_error=False, **common)
run_eval(task(epochs=2), model=model, log_format="json", fail_on_error=True, max_samples=1, **common)
