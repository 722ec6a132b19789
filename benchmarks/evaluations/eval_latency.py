"""One call to a model in each row, with the methods of the openai client."""

import os

from doteval import Result, Score, foreach

ROWS = int(os.environ["ROWS"])


@foreach("number", ((number,) for number in range(ROWS)))
async def eval_latency(number, async_openai_client):
    reply = await async_openai_client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": f"number {number}"}]
    )
    text = reply.choices[0].message.content
    return Result(Score("ok", bool(text), ["accuracy"]), prompt=f"number {number}", model_response=text)
