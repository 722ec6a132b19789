"""One model behind fixtures of three scopes. How often it is loaded depends on the scope alone."""

import time
from collections import Counter

import pytest

LOAD_SECONDS = 0.1


class Model:
    """Stands for a model that takes long to load and much memory to keep."""

    def double(self, number):
        return 2 * number


class Loads:
    """Loads models, and counts the loads of this worker process."""

    def __init__(self):
        self.counts = Counter(function=0, module=0, session=0)

    def load(self, scope):
        time.sleep(LOAD_SECONDS)
        self.counts[scope] += 1
        return Model()

    def get_stats(self):
        # `doteval usage` shows this, added up over all worker processes.
        return dict(self.counts)


@pytest.fixture(scope="session")
def loads():
    return Loads()


@pytest.fixture
def model_of_row(loads):
    return loads.load("function")


@pytest.fixture(scope="module")
def model_of_file(loads):
    return loads.load("module")


@pytest.fixture(scope="session")
def model_of_process(loads):
    yield loads.load("session")
    # A worker process gets here once, after its last row: free the GPU or stop the server here.
    loads.counts["session models torn down"] += 1
