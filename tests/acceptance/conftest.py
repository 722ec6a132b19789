"""Starts commands for acceptance tests, and runs them on both brokers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.commands import Commands


@pytest.fixture(scope="session")
def client_commands() -> Iterator[Commands]:
    """Starts commands that have imported the OpenAI library, which takes each worker process a second."""
    service = Commands("openai")
    yield service
    service.close()


@pytest.fixture
def commands(commands: Commands, client_commands: Commands, request: pytest.FixtureRequest) -> Commands:
    """Starts commands. Where evaluations ask models, they have imported the library for that."""
    return client_commands if "openai_client" in request.path.read_text(encoding="utf-8") else commands


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.variant)])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker. Every test that uses this runs twice, with Redis and with RabbitMQ."""
    return str(request.getfixturevalue(f"{request.param}_url"))
