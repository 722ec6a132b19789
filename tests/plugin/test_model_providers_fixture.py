"""The fixture `model_providers` in evaluation files."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.conftest import Evaluate, Records

PRINTING_PROVIDER = """
from doteval import ModelHandle
from doteval.providers.registry import register

class PrintingProvider:
    async def setup(self, spec, **config):
        print(f"\\n+{spec}")
        return ModelHandle(spec, Model(spec), self)

    async def teardown(self, resource_id):
        print(f"\\n-{resource_id}")
        if resource_id == "stuck":
            raise OSError("it is stuck")

class Model:
    def __init__(self, spec):
        self.spec = spec

    def get_stats(self):
        return {"letters": len(self.spec)}

register("telling", PrintingProvider)
"""

STANDARD = (
    PRINTING_PROVIDER
    + """
@pytest.fixture
async def model(request, model_providers):
    handle = await model_providers["telling"].setup(request.param)
    yield handle.model
    await handle.teardown()

@pytest.mark.parametrize("model", ["one", "two"], indirect=True)
@foreach("number", [(number,) for number in range(20)])
async def eval_standard(number, model):
    if number == 3:
        raise ValueError("this row fails")
    return Score("named", model.spec in ("one", "two"), ["accuracy"])
"""
)


def loads_of(result: pytest.RunResult) -> list[str]:
    return re.findall(r"(?<!\S)[+-](?:one|two|three|stuck)$", result.stdout.str(), re.MULTILINE)


def test_each_model_is_loaded_once_and_unloaded_for_the_next(evaluate: Evaluate, records: Records) -> None:
    result = evaluate(STANDARD)
    result.assert_outcomes(passed=2)
    assert loads_of(result) == ["+one", "-one", "+two", "-two"]
    statuses = [record.outcome.status.value for record in records("eval_standard[one]")]
    assert (statuses.count("done"), statuses.count("failed")) == (19, 1)


def test_everything_is_torn_down_when_a_teardown_fails(evaluate: Evaluate) -> None:
    result = evaluate(
        PRINTING_PROVIDER
        + """
@pytest.fixture(scope="session")
async def models(model_providers):
    return [(await model_providers["telling"].setup(spec)).model for spec in ("one", "stuck", "three")]

@foreach("number", [(1,)])
def eval_them(number, models):
    return Score("three", len(models) == 3, ["accuracy"])
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    assert loads_of(result) == ["+one", "+stuck", "+three", "-three", "-stuck", "-one"]
    result.stdout.fnmatch_lines(["*telling 'stuck': OSError: it is stuck*"])


def test_a_users_fixture_overrides_it_and_tests_may_request_it(evaluate: Evaluate) -> None:
    result = evaluate(
        """
def test_names(model_providers):
    assert model_providers == "mine"

@pytest.fixture(scope="session")
def model_providers():
    return "mine"

@foreach("number", [(1,)])
def eval_mine(number, model_providers):
    return Score("mine", model_providers == "mine", ["accuracy"])
"""
    )
    result.assert_outcomes(passed=2)


def test_an_unknown_name_gets_the_nearest_as_advice(evaluate: Evaluate) -> None:
    result = evaluate(
        """
@pytest.fixture(scope="session")
async def model(model_providers):
    return (await model_providers["opnai"].setup("m")).model

@foreach("number", [(1,)])
def eval_it(number, model):
    return Score("never", True, ["accuracy"])
"""
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no model provider named 'opnai'*", "*Did you mean 'openai'*"])


SERVED = """
import sys

@pytest.fixture(scope="session")
async def served(model_providers):
    return await model_providers["server"].setup(
        "m",
        command=[sys.executable, "-m", "doteval.mock_openai", "--port", "{port}", "--reply", "echo"],
        health="/v1/models",
    )

@foreach("word", [("alpha",), ("beta",)])
async def eval_served(word, served):
    reply = await served.model.chat(word)
    print(f"\\nserver {served.model.status.pid}")
    return Score("echoed", reply.choices[0].message.content == word, ["accuracy"])
"""


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory with a path that is short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="dv"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    yield directory
    shutil.rmtree(directory)


@pytest.mark.usefixtures("runtime")
def test_a_server_lives_as_long_as_the_pytest_session(evaluate: Evaluate, records: Records) -> None:
    result = evaluate(SERVED)
    result.assert_outcomes(passed=1)
    assert [record.outcome.scores[0].value for record in records("eval_served")] == [True, True]
    (pid,) = set(re.findall(r"^server (\d+)$", result.stdout.str(), re.MULTILINE))
    # It ended before pytest did.
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
