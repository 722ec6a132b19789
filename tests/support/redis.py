"""A real Redis for the tests, private to the test session, on a Unix socket and on a random TCP port."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis

from doteval.broker.embedded_redis import EmbeddedRedis, find_redis_binary
from doteval.errors import BrokerError
from tests.support.ports import free_port


class RedisService:
    """A running server and its two addresses."""

    def __init__(self, server: EmbeddedRedis, port: int) -> None:
        self.socket_url = server.url
        self.url = f"redis://127.0.0.1:{port}/0"

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@pytest.fixture(scope="session")
def redis_service() -> Iterator[RedisService]:
    """One server for the test session. Tests take `redis_url` or `redis_socket_url`, which are emptied first."""
    try:
        find_redis_binary()
    except BrokerError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Redis on CI: {error}")
        pytest.skip(str(error))
    port = free_port()
    server = EmbeddedRedis(options=("--bind", "127.0.0.1", "--port", str(port)))
    server.start()
    try:
        yield RedisService(server, port)
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_service: RedisService) -> str:
    """``redis://127.0.0.1:PORT/0`` of an empty server."""
    redis_service.flush()
    return redis_service.url


@pytest.fixture
def redis_socket_url(redis_service: RedisService) -> str:
    """The URL of the same server by its Unix socket, as `doteval submit` uses it."""
    redis_service.flush()
    return redis_service.socket_url
