"""Does the model classify short reviews as people do?"""

from doteval import Result, foreach
from doteval.evaluators import exact_match

QUESTION = "What is the sentiment of this review: positive, negative or neutral? Answer with one word."


@foreach("text,label", "reviews.csv")
async def eval_reviews(text, label, model):
    prompt = f"{QUESTION}\n\n{text}"
    answer = await model.ask(prompt)
    return Result(exact_match(answer.strip().lower(), label), prompt=prompt, model_response=answer)
