"""One request in each row with aiohttp alone, whose reply is parsed as JSON: the least that Python needs."""

import asyncio
import os

import aiohttp


async def main() -> None:
    concurrency = int(os.environ["CONCURRENCY"])
    numbers = iter(range(int(os.environ["ROWS"])))
    url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def rows() -> None:
            for number in numbers:
                body = {"model": "m", "messages": [{"role": "user", "content": f"number {number}"}]}
                async with session.post(url, json=body) as reply:
                    assert (await reply.json())["choices"][0]["message"]["content"]

        await asyncio.gather(*(rows() for _ in range(concurrency)))


asyncio.run(main())
