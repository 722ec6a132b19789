"""What every test can ask for: a fresh project, real services, and pytest's own test bench.

It also decides which tests `make test` runs, by their marks; see CONTRIBUTING.md.
"""

from __future__ import annotations

import gc
from collections import defaultdict

import hypothesis
import pytest

from tests.support.marks import COLLECTED, ItemsByTest

pytest_plugins = [
    "pytester",
    "tests.support.commands",
    "tests.support.openai",
    "tests.support.order",
    "tests.support.postgres",
    "tests.support.processes",
    "tests.support.rabbitmq",
    "tests.support.redis",
    "tests.support.silent_connections",
    "tests.support.spans",
    # Last: it imports from the others, which are imported as plugins first.
    "tests.support.project",
    "tests.support.pgbouncer",
]

# For `make test`; `make test-rest` runs the same tests with Hypothesis's own number of examples.
# No example has to end in time: the machine may be busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
hypothesis.settings.register_profile("few-examples", max_examples=20)

# A test that asks for one of these is a variant. One of several cases of a test gets the mark from its parameter.
_VARIANT_SERVERS = {"postgres_server", "rabbitmq_service"}


def pytest_configure() -> None:
    # Until everything is collected.
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave out what was imported and collected when garbage is collected, which would take 0.3 s each time."""
    gc.freeze()
    gc.enable()


# The marks must be there before pytest selects by them.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    collected: ItemsByTest = defaultdict(list)
    for item in items:
        if _VARIANT_SERVERS & set(_fixtures(item)):
            item.add_marker(pytest.mark.variant)
        collected[item.nodeid.partition("[")[0]].append(item)
    config.stash[COLLECTED] = collected


def _fixtures(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []
