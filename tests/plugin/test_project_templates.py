"""New projects: what `doteval init` writes runs at once, against the mock server and without a key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from doteval.project_templates import TEMPLATES
from tests.support.project import Project

METRICS = {
    "eval_reviews.py::eval_reviews": {"exact_match"},
    "eval_explanations.py::eval_explanations": {"correct", "simple"},
    "eval_shop.py::eval_shop": {"exact_match", "used_tools"},
}


def test_each_template_runs_against_the_mock_server(project: Project) -> None:
    """One `pytest` runs them all, beside a mock server that was started for it. `submit` runs the same files."""
    for template in TEMPLATES:
        project.run("init", template, "--template", template)
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "doteval.mock_openai"),
            *(sys.executable, "-m", "pytest", *TEMPLATES, "--experiment", "x", "--max-errors", "0"),
            # Two templates have files of the same name.
            "--import-mode=importlib",
        ],
        cwd=project.path,
        env=dict(project.process_environment()),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    evaluations = project.json("show", "x")["evaluations"]
    assert len(evaluations) == len(TEMPLATES)
    for evaluation in evaluations:
        name = f"{Path(evaluation['path']).name}::{evaluation['name']}"
        assert {score["name"] for score in evaluation["scores"]} == METRICS[name]
    shop = next(each for each in evaluations if each["name"] == "eval_shop")
    (tools,) = (score for score in shop["scores"] if score["name"] == "used_tools")
    assert [metric["value"] for metric in tools["metrics"]] == [1]


def test_the_mock_server_ends_with_the_code_of_its_command(tmp_path: Path) -> None:
    def beside(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "doteval.mock_openai", *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    ran = beside("--", "sh", "-c", 'echo "$OPENAI_BASE_URL $OPENAI_API_KEY"; exit 3')
    assert (ran.returncode, ran.stdout.split()[1]) == (3, "any")
    assert ran.stdout.startswith("http://127.0.0.1:")
    assert beside("sh", "-c", 'echo "$@"', "sh", "--batch", "--seed", "x").stdout == "--batch --seed x\n"
    assert beside("sh", "-c", "kill -9 $$").returncode == 128 + 9
    missing = beside("no-such-command")
    assert (missing.returncode, missing.stdout) == (127, "")
    assert "there is no command 'no-such-command'" in missing.stderr
