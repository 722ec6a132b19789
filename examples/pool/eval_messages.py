"""Does a chat model notice how customers feel? People write the same short messages again and again."""

from doteval import Result, foreach
from doteval.evaluators import exact_match


@foreach("text,label", "messages.csv", concurrency=20)
async def eval_messages(text, label, classifier):
    answer = await classifier.classify(text)
    return Result(exact_match(answer, label), prompt=text, model_response=answer)
