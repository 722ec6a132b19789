"""CPU of a call: the SDK as it is, our client, and the fast path, side by side.

``python benchmarks/clients.py [--calls 2000] [--in-flight 50] [--repeat 3]`` prints the milliseconds of CPU that one
call takes in this process (the mock server has its own) and the calls a second, each the best of the repeats.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openai import AsyncOpenAI, DefaultAioHttpClient

from doteval.metering import metering
from doteval.resources.fast import chat
from doteval.resources.mock_openai import MockOpenAI
from doteval.resources.openai import async_openai_client
from doteval.sharing import Sharing, share

MESSAGES = [{"role": "user", "content": "How much is it? " * 20}]

Call = Callable[[int], Awaitable[Any]]


async def measured(call: Call, calls: int, in_flight: int) -> tuple[float, float]:
    """Milliseconds of CPU a call, and calls a second."""
    numbers = iter(range(calls))

    async def row() -> None:
        for number in numbers:
            with metering():
                await call(number)

    await asyncio.gather(*(row() for _ in range(min(in_flight, 20))))
    numbers = iter(range(calls))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(row() for _ in range(in_flight)))
    return (time.process_time() - cpu) / calls * 1000, calls / (time.perf_counter() - wall)


def calls_of(base_url: str) -> tuple[dict[str, Call], list[AsyncOpenAI]]:
    """The ways to call, and the clients to close."""
    given: dict[str, Any] = {"base_url": base_url, "api_key": "unused"}
    plain = AsyncOpenAI(**given)
    aiohttp = AsyncOpenAI(**given, http_client=DefaultAioHttpClient())
    ours, caching = async_openai_client(**given), async_openai_client(**given, cache=True)

    def create(client: Any, **more: Any) -> Any:
        return client.chat.completions.create(model="m", messages=MESSAGES, **more)

    ways: dict[str, Call] = {
        "create(), AsyncOpenAI": lambda _: create(plain),
        "create(), AsyncOpenAI on aiohttp": lambda _: create(aiohttp),
        "create(), ours": lambda _: create(ours),
        "create(), ours, always a cache hit": lambda _: create(caching, temperature=0),
        "chat(), ours": lambda _: chat(ours, model="m", messages=MESSAGES),
    }
    return ways, [plain, aiohttp, ours, caching]


async def run(base_url: str, calls: int, in_flight: int, repeat: int) -> None:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(repeat):
        # In turn, so that whatever else the machine does hits all of them.
        ways, clients = calls_of(base_url)
        for name, call in ways.items():
            cpu, rate = await measured(call, calls, in_flight)
            known = best.get(name, (cpu, rate))
            best[name] = (min(cpu, known[0]), max(rate, known[1]))
        for client in clients:
            await client.close()
    for name, (cpu, rate) in best.items():
        print(f"{name:40} {cpu:6.3f} ms of CPU a call {rate:8.0f} calls/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with TemporaryDirectory() as directory, MockOpenAI() as server:
        share(Sharing(cache_path=str(Path(directory) / "cache.db")))
        asyncio.run(run(server.base_url, options.calls, options.in_flight, options.repeat))


if __name__ == "__main__":
    main()
