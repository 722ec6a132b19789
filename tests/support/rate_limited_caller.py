"""A process that sends requests without pause, as a worker process does with many rows.

``python -m tests.support.rate_limited_caller URL BROKER TASKS EVALUATION LIMITS``: TASKS asyncio tasks share one client
and its rate limits, of which LIMITS (JSON) are those that the user sets.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from typing import Any

from doteval.clients.openai import async_openai_client
from doteval.core.client_config import ClientConfig, configure_clients
from doteval.core.metering import UsageScope, metering


async def call(client: Any, evaluation: str, numbers: itertools.count[int]) -> None:
    for number in numbers:
        with metering() as meter:
            meter.scope = UsageScope(evaluation, number)
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f"{evaluation} {number}"}]
            )


async def main() -> None:
    base_url, broker, tasks, evaluation, limits = sys.argv[1:]
    configure_clients(ClientConfig(broker=broker or None))
    client = async_openai_client(base_url=base_url, api_key="any", max_retries=30, **json.loads(limits))
    numbers = itertools.count()
    await asyncio.gather(*(call(client, evaluation, numbers) for _ in range(int(tasks))))


if __name__ == "__main__":
    asyncio.run(main())
