"""One call to a model in each row, whose request and reply have half a kilobyte of text each."""

import os
import random

from doteval import Result, Score, foreach

ROWS = int(os.environ["ROWS"])
WORDS = [f"{first}{last}" for first in ("ta", "mo", "rel", "sin", "ker") for last in ("de", "ling", "ra", "po", "st")]


def text(seed):
    return " ".join(random.Random(seed).choices(WORDS, k=90))


@foreach("number", ((number,) for number in range(ROWS)))
async def eval_calls(number, async_openai_client):
    reply = await async_openai_client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": f"{text(number)} [[reply:{text(-number)}]]"}]
    )
    return Result(Score("ok", bool(reply.choices[0].message.content), ["accuracy"]))
