"""One call in each row with AsyncOpenAI and limited concurrency, as written by hand."""

import asyncio
import os

from openai import AsyncOpenAI


async def main() -> None:
    client = AsyncOpenAI()
    numbers = iter(range(int(os.environ["ROWS"])))

    async def rows() -> None:
        for number in numbers:
            reply = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": f"number {number}"}]
            )
            assert reply.choices[0].message.content

    await asyncio.gather(*(rows() for _ in range(int(os.environ["CONCURRENCY"]))))


asyncio.run(main())
