"""Two judges of the same answers: a model, and a rule of one line. Which of them agrees with people?"""

import pytest

from doteval import Result, foreach
from doteval.evaluators import evaluator, llm_judge
from doteval.metrics import accuracy


@pytest.fixture(scope="session")
def model_judge(async_openai_client):
    return llm_judge(async_openai_client, "mock-judge", criteria="It says what to do, or when.")


@evaluator(metrics=accuracy())
def rule_judge(answer):
    return any(sign.isdigit() for sign in answer) or "choose" in answer.lower()


# The answers are given, since the judges are what is looked at here. Ask your model for them.
@foreach("question,answer", "answers.csv")
async def eval_answers(question, answer, model_judge):
    by_model = await model_judge(answer, question=question)
    return Result(by_model, rule_judge(answer), prompt=question, model_response=answer)
