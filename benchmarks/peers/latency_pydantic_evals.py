"""One call in each row, for pydantic-evals."""

import os
from dataclasses import dataclass

from openai import AsyncOpenAI
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext


@dataclass
class HasText(Evaluator):
    def evaluate(self, ctx: EvaluatorContext) -> bool:
        return bool(ctx.output)


client = AsyncOpenAI()


async def ask(number: int) -> str | None:
    reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": f"number {number}"}])
    return reply.choices[0].message.content


cases = [Case(name=str(number), inputs=number) for number in range(int(os.environ["ROWS"]))]
dataset = Dataset(name="latency", cases=cases, evaluators=[HasText()])
report = dataset.evaluate_sync(ask, max_concurrency=int(os.environ["CONCURRENCY"]), progress=False)
assert len(report.cases) == len(cases)
