"""Does the model know capitals? A first attempt at a score: the answer has to be the name and nothing else."""

from doteval import Result, foreach
from doteval.evaluators import exact_match


@foreach("question,expected,mock", "questions.csv")
async def eval_capitals(question, expected, mock, async_openai_client):
    # `mock` tells the mock server what to reply. A real model needs no such column.
    messages = [{"role": "system", "content": mock}, {"role": "user", "content": question}]
    reply = await async_openai_client.chat.completions.create(model="mock-small", messages=messages)
    answer = reply.choices[0].message.content
    return Result(exact_match(answer, expected, name="right"), prompt=messages, model_response=answer)
