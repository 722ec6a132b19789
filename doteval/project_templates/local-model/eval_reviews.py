"""Does the model classify short reviews as people do?"""

from doteval import Result, foreach
from doteval.evaluators import exact_match


@foreach("text,label", "reviews.csv")
def eval_reviews(text, label, model):
    answer = model.classify(text)
    return Result(exact_match(answer, label), prompt=text, model_response=answer)
