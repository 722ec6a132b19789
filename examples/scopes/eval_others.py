"""A second file: the module fixture is loaded again for it, the session fixture is not."""

from doteval import Result, foreach
from doteval.evaluators import exact_match

NUMBERS = [(number, 2 * number) for number in range(100, 110)]


@foreach("number,expected", NUMBERS)
def eval_other_numbers(number, expected, model_of_file, model_of_process):
    answers = {model_of_file.double(number), model_of_process.double(number)}
    return Result(exact_match(answers, {expected}), prompt=number, model_response=answers)
