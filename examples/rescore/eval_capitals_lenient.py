"""The same evaluation with another evaluator: the name has to be in the answer. The model is asked the same."""

from doteval import Result, foreach
from doteval.evaluators import contains


@foreach("question,expected,mock", "questions.csv")
async def eval_capitals(question, expected, mock, async_openai_client):
    # `mock` tells the mock server what to reply. A real model needs no such column.
    messages = [{"role": "system", "content": mock}, {"role": "user", "content": question}]
    reply = await async_openai_client.chat.completions.create(model="mock-small", messages=messages)
    answer = reply.choices[0].message.content
    return Result(contains(answer, expected, ignore_case=True, name="right"), prompt=messages, model_response=answer)
