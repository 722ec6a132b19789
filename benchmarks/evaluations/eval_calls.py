"""One call to a model in each row, whose request and reply have half a kilobyte of text each."""

import os
import random

from doteval import Result, Score, foreach

ROWS = int(os.environ["ROWS"])
WORDS = [f"{first}{last}" for first in ("ta", "mo", "rel", "sin", "ker") for last in ("de", "ling", "ra", "po", "st")]


def text(seed):
    return " ".join(random.Random(seed).choices(WORDS, k=90))


# The texts are made where the dataset is read, not where the rows are timed.
@foreach("question,answer", ((text(number), text(ROWS + number)) for number in range(ROWS)))
async def eval_calls(question, answer, async_openai_client):
    reply = await async_openai_client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": f"{question} [[reply:{answer}]]"}]
    )
    return Result(Score("ok", bool(reply.choices[0].message.content), ["accuracy"]))
