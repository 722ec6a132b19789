"""The client fixtures: they read the environment, skip without an API, and can be overridden."""

from __future__ import annotations

from pathlib import Path

import pytest

from doteval.mock_openai import MockOpenAI

FIXTURES = """
import os
from doteval.clients.fixtures import async_openai_client, openai_client

def test_sync(openai_client):
    openai_client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hello"}])
    assert openai_client.get_stats()["requests"] == 1

def test_async(async_openai_client):
    import asyncio
    asyncio.run(async_openai_client.responses.create(model="m", input="hello"))
    assert async_openai_client.get_stats()["requests"] == 1
"""


@pytest.mark.parametrize("key", [None, "any"])
def test_fixtures_read_the_environment(
    key: str | None, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mock_openai: MockOpenAI
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", mock_openai.base_url)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    if key is None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    pytester.makepyfile(FIXTURES)
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_fixtures_skip_without_an_api(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    pytester.makepyfile(FIXTURES)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*no OpenAI API: set OPENAI_API_KEY*"])


def test_a_user_fixture_of_the_same_name_overrides(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    pytester.makeconftest("from doteval.clients.fixtures import async_openai_client, openai_client")
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="session")
        def openai_client():
            return "mine"

        def test_it(openai_client):
            assert openai_client == "mine"
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
