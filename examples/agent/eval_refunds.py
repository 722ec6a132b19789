"""Does an agent refund what it should, and nothing else? What counts is the state of the shop at the end."""

import json

from doteval import Result, foreach
from doteval.evaluators import evaluator, exact_match
from doteval.metrics import mean

MOST_TURNS = 6
RULES = "You serve the customers of a shop. Refund orders that were not delivered, and no others."


@evaluator(metrics=mean())
def turns(count):
    return count


@foreach("request,refunds,mock", "requests.jsonl")
async def eval_refunds(request, refunds, mock, shop, async_openai_client):
    # The mock server calls the tools that `mock` names, one a turn. A real model needs no such column.
    messages = [{"role": "system", "content": f"{RULES} {mock}"}, {"role": "user", "content": request}]
    for _ in range(MOST_TURNS):
        reply = await async_openai_client.chat.completions.create(
            model="mock-agent", messages=messages, tools=list(shop.TOOLS), temperature=0
        )
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            answer = shop.use(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(answer)})
    return Result(
        exact_match(shop.refunds, refunds, name="right_refunds"),
        turns(sum(message["role"] == "assistant" for message in messages)),
        prompt=messages[:2],
        model_response=message.content,
        metadata={"refunds": shop.refunds},
    )
