"""One call to a model in each row, through the fast path."""

import os

from doteval import Result, Score, foreach
from doteval.clients.fast import chat

ROWS = int(os.environ["ROWS"])


@foreach("number", ((number,) for number in range(ROWS)))
async def eval_fast_path(number, async_openai_client):
    reply = await chat(async_openai_client, model="m", messages=[{"role": "user", "content": f"number {number}"}])
    text = reply["choices"][0]["message"]["content"]
    return Result(Score("ok", bool(text), ["accuracy"]), prompt=f"number {number}", model_response=text)
