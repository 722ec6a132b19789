"""The workflows for GitHub Actions pass a linter, and their commands work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.support.project import Project

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "github-actions" / "evaluate.yml"
EVALUATION = """
from doteval import foreach
from doteval.evaluators import exact_match

@foreach("x", [(number,) for number in range(20)])
def eval_model(x):
    return exact_match(x >= {wrong}, True)
"""


@pytest.mark.parametrize("path", [ROOT / ".github" / "workflows" / "ci.yml", EXAMPLE], ids=lambda path: path.name)
def test_a_workflow_passes_actionlint(path: Path) -> None:
    program = Path(sys.executable).parent / "actionlint"
    ran = subprocess.run([program, "-shellcheck=", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def step(name: str) -> str:
    """The shell commands of a step of the example."""
    found = re.search(
        rf"      - name: {name}\n(?:        .*\n)*?        run: (.*\n(?:          .*\n)*)", EXAMPLE.read_text()
    )
    assert found
    first, _, block = found[1].partition("\n")
    return textwrap.dedent(block) if first == "|" else first


@pytest.mark.parametrize(("wrong", "code"), [(0, 0), (10, 1)])
def test_the_example_checks_thresholds_and_writes_a_summary(project: Project, wrong: int, code: int) -> None:
    project.write("evals/eval_model.py", EVALUATION.format(wrong=wrong))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EXPERIMENT": "pr-1",
        "GITHUB_STEP_SUMMARY": str(project.path / "step-summary.md"),
    }

    # GitHub uses the same command line.
    ran = subprocess.run(
        ["bash", "-e", "-c", step("Evaluate")],
        cwd=project.path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    summary = (project.path / "comment.md").read_text()
    assert f"{summary}\n" == (project.path / "step-summary.md").read_text()
    assert ("1.000" if code == 0 else "0.500") in summary
    assert "exact_match" in summary
    annotated = [line for line in ran.stdout.splitlines() if line.startswith("::error ")]
    failed = [line.partition("::evals")[0] for line in annotated]
    assert failed == ([] if code == 0 else ["::error file=evals/eval_model.py,title=eval_model"])
    junit = ElementTree.parse(project.path / "junit.xml").getroot()
    assert (junit.attrib["tests"], junit.attrib["failures"]) == ("1", str(code))
