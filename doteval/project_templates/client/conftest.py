"""What all evaluations of this folder share."""

import os

import pytest

from doteval.clients.openai import async_openai_client

MODEL = os.environ.get("MODEL", "gpt-4o-mini")


class ChatModel:
    """A chat model behind OpenAI's API, or behind any other that OPENAI_BASE_URL names."""

    def __init__(self, client, name):
        self.client = client
        self.name = name

    async def reply(self, messages, **options):
        """The message that the model answers with."""
        completion = await self.client.chat.completions.create(
            model=self.name, messages=messages, temperature=0, **options
        )
        return completion.choices[0].message

    async def ask(self, question):
        """The text that the model answers with."""
        return (await self.reply([{"role": "user", "content": question}])).content


@pytest.fixture(scope="session")
def client():
    # Each worker process makes one: its rows share the connections. A reply that was paid for once is kept.
    return async_openai_client(cache=True)


@pytest.fixture(scope="session")
def model(client):
    return ChatModel(client, MODEL)
