"""Runs the mock of OpenAI's API in its own process, one for the test session."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from doteval.mock_openai import MockOpenAI


@pytest.fixture(scope="session")
def mock_openai_process() -> Iterator[MockOpenAI]:
    """One server for the test session; tests take `mock_openai`."""
    with MockOpenAI() as server:
        yield server


@pytest.fixture
def mock_openai(mock_openai_process: MockOpenAI) -> MockOpenAI:
    """The server with its counters at zero. Faults are set by marker or header, so one server serves all tests."""
    # A request that an earlier test gave up on is still counted when it is answered.
    deadline = time.monotonic() + 30
    while mock_openai_process.stats()["in_flight"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    mock_openai_process.reset()
    return mock_openai_process
