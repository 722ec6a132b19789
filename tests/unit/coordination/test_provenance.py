"""What is found out about a command, whatever git is or does."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

import pytest

from doteval.coordination import provenance
from doteval.coordination.provenance import CommandOrigin, read_git
from doteval.core.provenance import GitState

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=trunk")


def git(directory: Path, *arguments: str) -> str:
    ran = subprocess.run([*GIT, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return ran.stdout.strip()


@pytest.fixture(autouse=True)
def _outside_of_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*provenance._BRANCH_VARIABLES, "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "eval_a.py").write_text("a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_clean_and_a_changed_repository(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "results.db").write_text("untracked")
    assert read_git(repository) == GitState(commit, "trunk", dirty=False)
    (repository / "eval_a.py").write_text("b")
    below = repository / "below"
    below.mkdir()
    assert read_git(below) == GitState(commit, "trunk", dirty=True)


def test_a_commit_without_branch_has_that_of_ci(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    commit = git(repository, "rev-parse", "HEAD")
    assert read_git(repository) == GitState(commit, None, dirty=False)
    monkeypatch.setenv("GITHUB_HEAD_REF", "")
    monkeypatch.setenv("GITHUB_REF_NAME", "feature")
    assert read_git(repository) == GitState(commit, "feature", dirty=False)


def test_without_a_repository_a_commit_or_git_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_git(tmp_path) is None
    git(tmp_path, "init", "--quiet")
    assert read_git(tmp_path) is None
    assert read_git(tmp_path / "gone") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_git(tmp_path) is None


def program(directory: Path, script: str) -> None:
    path = directory / "bin" / "git"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    os.environ["PATH"] = f"{path.parent}{os.pathsep}{os.environ['PATH']}"


def test_git_that_does_not_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(provenance, "_GIT_SECONDS", 0.2)
    # A process that SIGKILL cannot end would be the same: nobody waits for it.
    program(tmp_path, 'case "$*" in *status*) exec sleep 600;; *) echo abc123;; esac')
    assert read_git(tmp_path) == GitState("abc123", None, dirty=None)


@pytest.mark.parametrize("script", ["exit 3", "printf '\\377\\376'", "printf '# branch.oid\\n# branch.head \\n'"])
def test_git_that_answers_nonsense_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    program(tmp_path, script)
    assert read_git(tmp_path) is None


def test_a_command_is_recorded_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    found = CommandOrigin(["/x/bin/doteval", "submit", "--storage", "postgresql://u:pw@h/d"], tmp_path).read()
    assert found.command_line == "doteval submit --storage 'postgresql://u:***@h/d'"
    assert (found.git, found.user) == (None, str(os.getuid()))
    assert {"python", "doteval", "openai", "pytest", "celery", "genai-prices"} == found.versions.keys()
    assert CommandOrigin(["/x/pytest/__main__.py", "a.py"], tmp_path).read().command == (
        "python",
        "-m",
        "pytest",
        "a.py",
    )
    assert CommandOrigin([], tmp_path).read().command == ()
