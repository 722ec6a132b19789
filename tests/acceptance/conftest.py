"""Both brokers, one after the other."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["redis", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Either broker, with nothing on it: every test that takes this has two runs."""
    return str(request.getfixturevalue(f"{request.param}_url"))
