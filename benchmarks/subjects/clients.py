"""The processor time of a call in the process that makes it: plain SDK, doteval's client, and the fast path.

The mock server is a process of its own; 50 calls are in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openai import AsyncOpenAI, DefaultAioHttpClient

from benchmarks.bench import Bench
from doteval.clients.fast import chat
from doteval.clients.openai import async_openai_client
from doteval.core.client_config import ClientConfig, configure_clients
from doteval.core.metering import metering
from doteval.mock_openai import MockOpenAI

WORK = "a call to a model, one process"
IN_FLIGHT = 50
MESSAGES = [{"role": "user", "content": "How much is it? " * 20}]

Call = Callable[[int], Awaitable[Any]]


async def measured(call: Call, calls: int, in_flight: int) -> tuple[float, float]:
    """The milliseconds of processor time of a call, and the calls a second."""
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
    """The ways to make a call, and the clients to close afterwards."""
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


async def _measure(bench: Bench, base_url: str, calls: int) -> None:
    cpus: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {}
    for _ in range(bench.repeat):
        # In turn, so that a disturbance of the machine affects all of them alike.
        ways, clients = calls_of(base_url)
        for name, call in ways.items():
            cpu, rate = await measured(call, calls, IN_FLIGHT)
            cpus.setdefault(name, []).append(cpu)
            rates.setdefault(name, []).append(rate)
        for client in clients:
            await client.close()
    for name, values in cpus.items():
        bench.report.add(WORK, name, "ms of CPU", values)
    for name, values in rates.items():
        bench.report.add(WORK, name, "calls/s", values)


def measure(bench: Bench) -> None:
    with TemporaryDirectory() as directory, MockOpenAI() as server:
        configure_clients(ClientConfig(cache_path=str(Path(directory) / "cache.db")))
        asyncio.run(_measure(bench, server.base_url, bench.rows(2_000)))
