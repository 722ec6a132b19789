"""The first hour of a user: the wheel in a fresh virtual environment, and every template of `doteval init` in it.

Nothing of the checkout can be imported there. Commands are those of the files that `init` writes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from doteval.project_templates import TEMPLATES

ROOT = Path(__file__).parents[2]
FILES = {
    "llm": ("conftest.py", "eval_reviews.py", "reviews.csv"),
    "local-model": ("conftest.py", "eval_reviews.py", "reviews.csv"),
    "judge": ("conftest.py", "eval_explanations.py"),
    "agent": ("conftest.py", "eval_shop.py"),
}
COMMON = (".github/workflows/evaluate.yml", ".gitignore", "Makefile", "pyproject.toml", "requirements.txt")
ROWS = {"llm": 8, "local-model": 8, "judge": 6, "agent": 4}

pytestmark = pytest.mark.slow("test_project_templates.py runs the templates, test_packaging.py builds the wheel")


@dataclass(frozen=True)
class Installed:
    """A virtual environment that holds the locked packages and, after `pip install`, doteval."""

    bin: Path
    wheel: Path

    def run(
        self,
        command: str | Sequence[str | Path],
        directory: Path,
        code: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as a shell in the activated environment does; fails unless it exits with `code`."""
        ran = subprocess.run(
            ["bash", "-ec", command] if isinstance(command, str) else command,
            cwd=directory,
            env={
                "PATH": f"{self.bin}{os.pathsep}{os.defpath}",
                "VIRTUAL_ENV": str(self.bin.parent),
                "HOME": str(directory.parent),
                # The wheel is all that pip may find.
                "PIP_NO_INDEX": "1",
                **(environment or {}),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == code, f"{command}\n{ran.stdout}\n{ran.stderr}"
        return ran

    def json(self, command: str, directory: Path) -> Any:
        return json.loads(self.run(f"{command} --json", directory).stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [*pip(), "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", directory, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = directory.glob("*.whl")
    environment = directory / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    install_locked(environment / "bin" / "python")
    return Installed(environment / "bin", wheel)


def pip(python: Path | str = sys.executable) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check"]


def install_locked(python: Path) -> None:
    """As `make install` does: with uv, or with pip, which may know of another index."""
    lock = ["install", "--quiet", "--require-hashes", "-r", str(ROOT / "requirements.lock")]
    uv = [str(Path(sys.executable).with_name("uv")), "pip", *lock, "--python", str(python)]
    for command in ([*uv, "--offline"], uv, [*pip(python), *lock]):
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if ran.returncode == 0:
            return
    reason = f"the locked packages cannot be installed, no package index answers: {ran.stderr[-300:]}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def test_each_template_runs_as_its_files_say(installed: Installed, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    installed.run([*pip("python"), "install", "--quiet", "--no-deps", installed.wheel], home)
    for template in TEMPLATES:
        wrote = installed.run(f"doteval init {template} --template {template}", home).stdout
        written = re.findall(rf"^wrote  {template}/(.+)$", wrote, re.MULTILINE)
        assert sorted(written) == sorted((*COMMON, *FILES[template]))
        project = home / template
        assert all((project / name).is_file() for name in written)
        if template == TEMPLATES[0]:
            check_requirements(installed, project)
        tried = installed.run("make", project).stdout
        check_workflow(installed, project)
        assert "1 passed" in installed.run("python -m doteval.mock_openai pytest --experiment here", project).stdout
        experiments = {each["name"]: each for each in installed.json("doteval list", project)["experiments"]}
        named = {name for name in experiments if f"To see them: doteval show {name} --full" in tried}
        assert experiments.keys() - named == {"pr-7", "here"}
        for experiment in experiments.values():
            assert experiment["status"] == "completed"
            assert experiment["rows"]["done"] == experiment["rows"]["total"] == ROWS[template]


def test_a_changed_project_is_tried_again(installed: Installed, tmp_path: Path) -> None:
    """`make` needs no new name after a change; `make evaluate` does, and says so as it says that it has no key."""
    installed.run([*pip("python"), "install", "--quiet", "--no-deps", installed.wheel], tmp_path)
    installed.run("doteval init", tmp_path)
    installed.run("python -m doteval.mock_openai make try evaluate", tmp_path)
    file = tmp_path / "eval_reviews.py"
    file.write_text(file.read_text().replace("Answer with one word", "Answer with a word"))
    installed.run("make try", tmp_path)
    assert "Begin another experiment" in installed.run("make evaluate", tmp_path, code=2).stderr
    missing = installed.run("make evaluate EXPERIMENT=second", tmp_path, code=2).stderr
    assert "Missing credentials" in missing
    installed.run("python -m doteval.mock_openai make evaluate EXPERIMENT=second", tmp_path)
    experiments = installed.json("doteval list", tmp_path)["experiments"]
    assert [each["status"] for each in experiments] == ["completed"] * 4


def check_requirements(installed: Installed, project: Path) -> None:
    """What the project requires is the wheel, and nothing of the checkout can be imported beside it."""
    wheels = project / "wheels"
    wheels.mkdir()
    shutil.copy(installed.wheel, wheels)
    installed.run([*pip("python"), "uninstall", "--quiet", "--yes", "doteval"], project)
    installed.run("pip install --quiet --disable-pip-version-check -r requirements.txt", project)
    code = (
        "from importlib.util import find_spec as f; import doteval; print(doteval.__file__, f('tests'), f('workers'))"
    )
    file, *others = installed.run(["python", "-c", code], project).stdout.split()
    assert Path(file).is_relative_to(installed.bin.parent)
    assert others == ["None", "None"]


def check_workflow(installed: Installed, project: Path) -> None:
    """The commands of the workflow run as GitHub runs them, and leave the files that it keeps."""
    workflow = project / ".github" / "workflows" / "evaluate.yml"
    linted = subprocess.run(
        [Path(sys.executable).with_name("actionlint"), "-shellcheck=", workflow], capture_output=True, text=True
    )
    assert linted.returncode == 0, linted.stdout
    described = yaml.safe_load(workflow.read_text())
    (job,) = described["jobs"].values()
    values = {"github.event.pull_request.number": "7", "secrets.OPENAI_API_KEY": ""}
    values["env.FOLDER"] = described["env"]["FOLDER"]
    summary = project / "summary.md"
    folder = project / filled(job["defaults"]["run"]["working-directory"], values)
    for step in job["steps"]:
        if "run" in step:
            environment = {name: filled(text, values) for name, text in step.get("env", {}).items()}
            installed.run(step["run"], folder, environment={**environment, "GITHUB_STEP_SUMMARY": str(summary)})
    assert "pr-7" in summary.read_text()
    (upload,) = (step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    kept = filled(upload["with"]["path"], values).split()
    assert len(kept) == 2
    assert all((project / path).is_file() for path in kept)


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text of the workflow with GitHub's expressions replaced by their values."""
    return re.sub(r"\$\{\{ (\S+) }}", lambda found: values[found[1]], text)
