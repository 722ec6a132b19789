"""An evaluation for dotevals, which stores its results as JSON lines."""

from dotevals import Result, foreach
from dotevals.evaluators import exact_match


@foreach("text,expected", [("a", "a"), ("b", "x"), ("c", "c"), ("d", "d")])
def eval_stored(text, expected):
    if text == "c":
        raise ValueError("no answer: é")
    return Result(exact_match(text, expected), prompt=f"say {text}", model_response=text)
