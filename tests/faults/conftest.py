"""A project whose worker service, broker and store a test may break."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_seeds import FAULT_SEEDS
from tests.support.fault_services import Broker, PostgresServer, RabbitServer, RedisServer
from tests.support.project import Project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.faults)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", FAULT_SEEDS)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path, project: Project) -> Iterator[Broker]:
    """A broker that the test may break; the project's commands use it. Redis, unless `on_both_brokers`."""
    server: Broker
    if getattr(request, "param", "redis") == "redis":
        server = RedisServer(tmp_path.parent / f"{tmp_path.name}-redis")
        server.start()
    else:
        server = RabbitServer(request.getfixturevalue("rabbitmq_service"))
    project.environment["DOTEVAL_BROKER"] = server.url
    yield server
    server.stop()


@pytest.fixture
def postgres(project: Project) -> Iterator[PostgresServer]:
    """A PostgreSQL of this test's own; the project's commands use it."""
    with tempfile.TemporaryDirectory(prefix="pg") as directory:
        server = PostgresServer(Path(directory) / "data")
        project.environment["DOTEVAL_STORAGE"] = server.url
        yield server
        server.stop()
