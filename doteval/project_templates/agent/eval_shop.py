"""Does an agent find what a basket costs? It has two tools and may use them in several turns.

Every turn is a call of the model. `doteval show NAME --row 0` prints them as a conversation, and a row whose process
dies goes on after its last finished call.
"""

import json

from doteval import Result, foreach
from doteval.evaluators import evaluator, exact_match
from doteval.metrics import accuracy

MOST_TURNS = 8
PRICES = {"apple": 40, "bread": 250, "cheese": 600}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "price_of",
            "description": "The price of one item in cents.",
            "parameters": {
                "type": "object",
                "properties": {"item": {"type": "string", "enum": list(PRICES)}},
                "required": ["item"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "total",
            "description": "The sum of several prices.",
            "parameters": {
                "type": "object",
                "properties": {"prices": {"type": "array", "items": {"type": "integer"}}},
                "required": ["prices"],
            },
        },
    },
]
QUESTION = "What do these cost together, in cents? Answer with the number only: {basket}"
BASKETS = [("an apple", "40"), ("two apples", "80"), ("a bread and a cheese", "850"), ("one of each", "890")]


def run_tool(name, arguments):
    if name == "price_of":
        return PRICES.get(arguments.get("item"), "there is no such item")
    if name == "total":
        return sum(arguments.get("prices", []))
    return "there is no such tool"


@evaluator(metrics=accuracy())
def used_tools(calls):
    return bool(calls)


@foreach("basket,expected", BASKETS)
async def eval_shop(basket, expected, model):
    messages = [{"role": "user", "content": QUESTION.format(basket=basket)}]
    calls = []
    answer = ""
    for _ in range(MOST_TURNS):
        message = await model.reply(messages, tools=TOOLS)
        if not message.tool_calls:
            answer = message.content or ""
            break
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            result = run_tool(call.function.name, json.loads(call.function.arguments))
            calls.append(call.function.name)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})
    return Result(
        exact_match(answer.strip(), expected),
        used_tools(calls),
        prompt=messages,
        model_response=answer,
        metadata={"tools": calls},
    )
