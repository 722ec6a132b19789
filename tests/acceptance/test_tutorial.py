"""Submits the tutorial's files unchanged. They may lie beside a checkout; otherwise the tests are skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project

TUTORIAL = Path(__file__).parents[3] / "shared" / "tutorial"

pytestmark = [
    pytest.mark.skipif(not TUTORIAL.is_dir(), reason="the tutorial's files are not beside this checkout"),
    pytest.mark.slow("the same files under pytest: tests/plugin/test_tutorial_files.py"),
]


def submitted(project: Project, name: str, workers: int = 1, check: int = 0) -> str:
    """The output of submitting a file of the tutorial."""
    shutil.copy(TUTORIAL / name, project.path / name)
    done = project.run("submit", name, "--experiment", "tutorial", "--workers", str(workers), check=check)
    return done.stdout + done.stderr


def test_fixture_scopes(project: Project) -> None:
    output = submitted(project, "eval_fixture_scopes.py")
    assert output.count("Creating function-scoped model") == output.count("Cleaning up function-scoped model") == 3
    assert output.count("Creating session-scoped model") == 1
    assert "used 3 times" in output
    assert {name: len(records) for name, records in project.records("tutorial").items()} == {
        "eval_with_function_fixture": 3,
        "eval_with_session_fixture": 3,
    }


def test_fixture_performance(project: Project) -> None:
    output = submitted(project, "eval_fixture_performance.py")
    # Six function fixtures, one module fixture, one session fixture.
    assert output.count("Creating expensive model") == 6 + 1 + 1
    assert "Module model used 6 times" in output
    assert "Session model used 6 times" in output


def test_local_model_pooling(project: Project) -> None:
    output = submitted(project, "eval_local_model_pooling.py", workers=2)
    assert output.count("Loading sentiment model") == 2
    assert output.count("Model pool cleanup") == 2
    load = next(load for load in project.json("usage", "tutorial")["fixtures"] if load["fixture"] == "local_model_pool")
    assert load["stats"]["usage_count"] == load["stats"]["model_call_counts"] == {"sentiment": 5}


def test_model_pooling(project: Project, mock_openai: MockOpenAI) -> None:
    project.environment |= {"OPENAI_BASE_URL": mock_openai.base_url, "OPENAI_API_KEY": "any"}
    output = submitted(project, "eval_model_pooling.py")
    assert "OpenAI connection verified" in output
    # Six rows with four different texts, and the connection check.
    assert mock_openai.stats()["requests"] == 4 + 1
    shown = project.json("show", "tutorial")["evaluations"][0]
    assert shown["rows"]["done"] == 6


def test_model_pooling_without_a_server(project: Project) -> None:
    project.environment |= {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "any"}
    # Nothing ran.
    submitted(project, "eval_model_pooling.py", check=7)
    shown = project.json("show", "tutorial")["evaluations"][0]
    assert shown["status"] == "skipped"
    assert shown["reason"] == "OpenAI API not available"
