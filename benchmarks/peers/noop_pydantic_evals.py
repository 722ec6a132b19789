"""Rows that do nothing, for pydantic-evals, which keeps results in memory only."""

import os
from dataclasses import dataclass

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext


@dataclass
class IsNumber(Evaluator):
    def evaluate(self, ctx: EvaluatorContext) -> bool:
        return ctx.output >= 0


async def noop(number: int) -> int:
    return number


cases = [Case(name=str(number), inputs=number) for number in range(int(os.environ["ROWS"]))]
report = Dataset(name="noop", cases=cases, evaluators=[IsNumber()]).evaluate_sync(noop, progress=False)
assert len(report.cases) == len(cases)
