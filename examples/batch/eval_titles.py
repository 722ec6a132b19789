"""Rows that may wait: with --batch their calls travel in batches of the provider, for half the price."""

import json

from doteval import Result, foreach
from doteval.evaluators import evaluator
from doteval.metrics import accuracy

TEXTS = [(f"Chapter {number} tells what the fox did.",) for number in range(1, 31)]
SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}


@evaluator(metrics=accuracy())
def short(text, most=60):
    return 0 < len(text) <= most


@foreach("text", TEXTS)
async def eval_titles(text, async_openai_client):
    # Code before a call runs twice: a row ends at a call without a reply, and begins anew when the batch is back.
    messages = [{"role": "user", "content": f"Invent a title, as JSON: {text}"}]
    reply = await async_openai_client.chat.completions.create(
        model="mock-small",
        messages=messages,
        response_format={"type": "json_schema", "json_schema": {"name": "title", "schema": SCHEMA}},
    )
    title = json.loads(reply.choices[0].message.content)["title"]
    return Result(short(title), prompt=messages, model_response=title)
