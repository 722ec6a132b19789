"""Does the search find the help article that answers a question?"""

from doteval import Result, foreach
from doteval.evaluators import exact_match


@foreach("question,title", "questions.csv")
def eval_search(question, title, search, similarity):
    found = search.find(question)
    # A title that is near the right one is a smaller mistake than any other.
    return Result(exact_match(found, title), similarity(found, title), prompt=question, model_response=found)
