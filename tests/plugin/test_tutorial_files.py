"""The unchanged files of the tutorial "Share expensive resources" do what the tutorial says."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from doteval.mock_openai import MockOpenAI
from tests.plugin.conftest import Evaluate

TUTORIAL = Path(__file__).parents[3] / "shared" / "tutorial"

pytestmark = pytest.mark.skipif(not TUTORIAL.is_dir(), reason="the tutorial is not beside the repository")


@pytest.fixture
def tutorial(pytester: pytest.Pytester, run_pytest: Evaluate):  # type: ignore[no-untyped-def]
    """Run pytest as the tutorial does: on one of its files, verbosely and without capture."""

    def run(name: str, *arguments: str) -> pytest.RunResult:
        file = name.partition("::")[0]
        (pytester.path / file).write_bytes((TUTORIAL / file).read_bytes())
        return run_pytest(name, "--experiment", "tutorial", "-v", "-s", *arguments)

    return run


def seconds_of(result: pytest.RunResult) -> float:
    found = re.search(r"passed.* in ([\d.]+)s", result.stdout.str())
    assert found is not None
    return float(found[1])


def test_fixture_scopes(tutorial: Evaluate) -> None:
    result = tutorial("eval_fixture_scopes.py")
    result.assert_outcomes(passed=2)
    output = result.stdout.str()
    assert output.count("Creating function-scoped model...") == 3
    assert output.count("Cleaning up function-scoped model") == 3
    assert output.count("Creating session-scoped model...") == 1
    assert re.search(r"Cleaning up session model: Model loaded at [\d.]+, used 3 times", output)
    # Each model is unloaded before the next is loaded; a load takes 2 s and happens three times, or once.
    order = re.findall(r"(Creating|Cleaning up) function", output)
    assert order == ["Creating", "Cleaning up"] * 3
    assert 8 <= seconds_of(result) < 16
    times = re.findall(r"(?m)^eval_with_\w+ .* ([\d.]+) s$", output)
    assert 6 <= float(times[0]) < 9
    assert float(times[1]) < 2


def test_model_pooling_with_a_server(
    tutorial: Evaluate, mock_openai: MockOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", mock_openai.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "for the mock")
    result = tutorial("eval_model_pooling.py")
    result.assert_outcomes(passed=2)
    output = result.stdout.str()
    # Six rows with four texts, and the connection check.
    assert mock_openai.stats()["requests"] == 5
    assert output.count("Creating shared OpenAI client...") == 1
    result.stdout.fnmatch_lines(
        [
            "*Final Pool Statistics:",
            "Total API requests: 4",
            "Cache entries: 4",
            "Cache hit rate: 100.0%",
            "*Model pool stats: {'requests': 4, 'cache_size': 4, 'cache_hit_rate': 100.0}",
            "*Cleaning up OpenAI client",
        ]
    )
    result.stdout.re_match_lines([r"eval_with_pooled_model +exact_match\.accuracy .* 6 +0 +0"])


def test_model_pooling_without_a_server_is_skipped_at_once(tutorial: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "for nobody")
    begun = time.monotonic()
    result = tutorial("eval_model_pooling.py", "-rs")
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*OpenAI API not available"])
    assert time.monotonic() - begun < 120


def test_local_model_pooling(tutorial: Evaluate) -> None:
    result = tutorial("eval_local_model_pooling.py")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*Local Model Pool Stats:",
            "Models loaded: [[]'sentiment']",
            "Pool usage: {'sentiment': 5}",
            "Model calls: {'sentiment': 5}",
            "*Model pool cleanup: *'model_call_counts': {'sentiment': 5}}",
        ]
    )
    assert result.stdout.str().count("Loading sentiment model...") == 1


@pytest.mark.parametrize(
    ("node", "loads", "used"),
    [
        ("", 8, ["Module model used 6 times", "Session model used 6 times"]),
        ("::eval_function_scope", 6, []),
        ("::eval_module_scope", 1, ["Module model used 6 times"]),
        ("::eval_session_scope", 1, ["Session model used 6 times"]),
    ],
)
def test_fixture_performance(tutorial: Evaluate, node: str, loads: int, used: list[str]) -> None:
    result = tutorial(f"eval_fixture_performance.py{node}")
    result.assert_outcomes(passed=1 if node else 3)
    output = result.stdout.str()
    assert output.count("Creating expensive model...") == loads
    assert re.findall(r"\w+ model used \d+ times", output) == used


def test_the_scopes_of_the_article_hold_for_evaluations(pytester: pytest.Pytester, run_pytest: Evaluate) -> None:
    # The tests of the article, written as evaluations of two rows each.
    text = (TUTORIAL / "test_app.py").read_text()
    text = text.replace("def test_", "def eval_").replace(
        "@pytest.mark.parametrize('option', ['first', 'second'])", "@foreach('option', ['first', 'second'])"
    )
    text = re.sub(
        r'(?m)^(\s+)print\(f?"test_.*\)$', r"\1print(self.__class__.__name__, option)\n\1return Score('ok', True)", text
    )
    pytester.path.joinpath("eval_app.py").write_text("from doteval import Score, foreach\n" + text)
    result = run_pytest("eval_app.py", "-v", "-s")
    result.assert_outcomes(passed=7)
    output = result.stdout.str()
    assert output.count("TestApp first") == 5
    assert output.count("TestAppSecondTime second") == 2
    # Function: each row. Class: once for each of the two classes. Module: once.
    assert output.count("Object: ") == 2 + 2 + 1
