"""Does the model explain words so that a child understands them? Another call of a model judges that.

Label some of the rows yourself before you trust the judge: `doteval judge-check --help`.
"""

import pytest

from doteval import Result, foreach
from doteval.evaluators import llm_rubric

JUDGE = "gpt-4o"
WORDS = [("gravity",), ("inflation",), ("photosynthesis",), ("democracy",), ("friction",), ("memory",)]


@pytest.fixture(scope="session")
def rubric(client):
    return llm_rubric(
        client,
        JUDGE,
        {"correct": "What it says is true.", "simple": "A child of ten understands every word of it."},
    )


@foreach("word", WORDS)
async def eval_explanations(word, model, rubric):
    prompt = f"Explain to a child of ten what this word means: {word}"
    answer = await model.ask(prompt)
    return Result(*await rubric(answer, question=prompt), prompt=prompt, model_response=answer)
