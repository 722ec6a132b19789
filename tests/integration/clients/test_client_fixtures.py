"""The client fixtures: they read the environment, skip without an API, and can be overridden."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.commands import Commands

RunPytest = Callable[..., pytest.RunResult]

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


@pytest.fixture
def run_pytest(pytester: pytest.Pytester, user_commands: Commands) -> RunPytest:
    """Run pytest in a process that has imported the OpenAI library."""

    def run(*arguments: str) -> pytest.RunResult:
        done = user_commands.run("pytest", arguments, directory=pytester.path, environment=os.environ, timeout=180)
        return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0.0)

    return run


@pytest.mark.parametrize("key", [None, "any"])
def test_fixtures_read_the_environment(
    key: str | None,
    run_pytest: RunPytest,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    mock_openai: MockOpenAI,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", mock_openai.base_url)
    if key is None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    else:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    pytester.makepyfile(FIXTURES)
    run_pytest().assert_outcomes(passed=2)


def test_fixtures_skip_without_an_api(
    run_pytest: RunPytest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    pytester.makepyfile(FIXTURES)
    result = run_pytest("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*no OpenAI API: set OPENAI_API_KEY*"])


def test_a_user_fixture_of_the_same_name_overrides(run_pytest: RunPytest, pytester: pytest.Pytester) -> None:
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
    run_pytest().assert_outcomes(passed=1)
