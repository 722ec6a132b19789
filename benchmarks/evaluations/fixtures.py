"""The four fixtures that `eval_fixtures` and `test_fixtures` share."""

import pytest


@pytest.fixture(scope="session")
def settings():
    return {"model": "m"}


@pytest.fixture(scope="session")
def client(settings):
    yield object()


@pytest.fixture(scope="module")
def loader(client):
    return client


@pytest.fixture
def bucket(loader):
    numbers = []
    yield numbers
    numbers.clear()
