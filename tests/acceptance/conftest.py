"""Runs acceptance tests on both brokers."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.variant)])
def broker_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty broker. Every test that uses this runs twice, with Redis and with RabbitMQ."""
    return str(request.getfixturevalue(f"{request.param}_url"))
