"""The client that all rows share."""

import pytest

from doteval.clients.openai import async_openai_client

QUESTION = "What is the sentiment of this message: positive, negative or neutral? Answer with one word."


class Classifier:
    def __init__(self, client, model):
        self.client = client
        self.model = model

    async def classify(self, text):
        reply = await self.client.chat.completions.create(
            model=self.model,
            messages=[{"role": "system", "content": QUESTION}, {"role": "user", "content": text}],
            # The cache keeps replies to repeatable requests only.
            temperature=0,
        )
        return reply.choices[0].message.content.strip().lower()


@pytest.fixture(scope="session")
def classifier():
    # Each worker process makes one client, whose rows share its connections. The cache and the rate limit are shared
    # by all worker processes.
    return Classifier(async_openai_client(cache=True, requests_per_minute=600), "mock-small")
