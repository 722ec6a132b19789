"""One call in each row, for dotevals. 0.26 has a sliding window; in 0.28 the author limits the concurrency."""

import asyncio
import os

import pytest
from dotevals import Result, foreach
from dotevals.evaluators import exact_match
from openai import AsyncOpenAI

ROWS = int(os.environ["ROWS"])
CONCURRENCY = int(os.environ["CONCURRENCY"])

try:
    from dotevals.concurrency import SlidingWindow

    given = {"concurrency": SlidingWindow(max_concurrency=CONCURRENCY)}
except ImportError:
    given = {}

bound = asyncio.Semaphore(CONCURRENCY)


@pytest.fixture(scope="session")
def client():
    return AsyncOpenAI()


@foreach("number", [(number,) for number in range(ROWS)], **given)
async def eval_latency(number, client):
    prompt = f"number {number}"
    async with bound:
        reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return Result(exact_match(bool(reply.choices[0].message.content), True), prompt=prompt)
