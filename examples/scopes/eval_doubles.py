"""The same rows with a model of each scope."""

from doteval import Result, foreach
from doteval.evaluators import exact_match

NUMBERS = [(number, 2 * number) for number in range(10)]


@foreach("number,expected", NUMBERS)
def eval_function_scope(number, expected, model_of_row):
    answer = model_of_row.double(number)
    return Result(exact_match(answer, expected), prompt=number, model_response=answer)


@foreach("number,expected", NUMBERS)
def eval_module_scope(number, expected, model_of_file):
    answer = model_of_file.double(number)
    return Result(exact_match(answer, expected), prompt=number, model_response=answer)


@foreach("number,expected", NUMBERS)
def eval_session_scope(number, expected, model_of_process):
    answer = model_of_process.double(number)
    return Result(exact_match(answer, expected), prompt=number, model_response=answer)
