"""Does a chat model classify short product reviews as people do?

The model is behind an OpenAI-compatible API. The async rows of a worker process share one client, and a cache that
answers repeated texts.
"""

import pytest

from doteval import Result, foreach
from doteval.evaluators import exact_match

QUESTION = "What is the sentiment of this review: positive, negative or neutral? Answer with one word."


class Classifier:
    def __init__(self, client):
        self.client = client
        self.answers = {}
        self.lookups = self.hits = 0

    async def classify(self, text):
        self.lookups += 1
        if text in self.answers:
            self.hits += 1
            return self.answers[text]
        reply = await self.client.chat.completions.create(
            model="mock-small",
            messages=[{"role": "system", "content": QUESTION}, {"role": "user", "content": text}],
            temperature=0,
        )
        answer = self.answers[text] = reply.choices[0].message.content.strip().lower()
        return answer

    def get_stats(self):
        return {"lookups": self.lookups, "cache hits": self.hits}


@pytest.fixture(scope="session")
def classifier(async_openai_client):
    return Classifier(async_openai_client)


@foreach("text,label", "reviews.csv")
async def eval_chat(text, label, classifier):
    answer = await classifier.classify(text)
    return Result(exact_match(answer, label), prompt=text, model_response=answer)
