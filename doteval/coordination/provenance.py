"""Records where the results of an experiment come from: git's state, the command, the machine, the packages.

Nothing here ever keeps an evaluation from running: what cannot be found out is not recorded.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from doteval.core import clocks
from doteval.core.experiments import Experiment
from doteval.core.package_prices import PACKAGE as PRICES
from doteval.core.provenance import GitState, Provenance
from doteval.core.redaction import hide_secrets
from doteval.store import Store

# All questions to git together may take so long: on a slow network drive `git status` takes minutes.
_GIT_SECONDS = 2.0
# CI checks out commits, not branches, and names the branch here: GitHub for pull requests and others, then GitLab.
_BRANCH_VARIABLES = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_BRANCH")
_PACKAGES = ("doteval", "openai", "pytest", "celery", PRICES)


@dataclass(frozen=True, slots=True)
class CommandOrigin:
    """The arguments of a command, and a directory of the evaluation files that it runs."""

    arguments: Sequence[str]
    directory: Path

    def read(self) -> Provenance:
        """Find out everything about the command."""
        return Provenance(
            command=hide_secrets(_named(self.arguments)),
            git=read_git(self.directory),
            host=socket.gethostname(),
            user=_user(),
            versions=_versions(),
        )


def record_command(
    store: Store, experiment: Experiment, origin: CommandOrigin, *, tags: Sequence[str] = (), note: str | None = None
) -> None:
    """Record that a command begins or continues an experiment, and add its tags and its note, if it has one."""
    store.provenance.add(experiment, origin.read())
    store.labels.change(experiment, add=tags, note=note)


def read_git(directory: Path) -> GitState | None:
    """What git says of a directory, None if it says nothing within two seconds."""
    until = clocks.monotonic() + _GIT_SECONDS
    # Without --untracked-files=no, the result store itself would make a repository dirty that does not ignore it.
    status = _git(directory, until, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        # The commit alone is found without a look at the files.
        commit = (_git(directory, max(until, clocks.monotonic() + 0.5), "rev-parse", "HEAD") or "").strip()
        return GitState(commit, _branch_of_ci(os.environ)) if commit else None
    heads = [line[2:].partition(" ") for line in status.splitlines() if line.startswith("# branch.")]
    facts = {name: value for name, _, value in heads if value}
    commit = facts.get("branch.oid", "(initial)")
    if commit == "(initial)":
        return None
    branch = facts.get("branch.head")
    dirty = any(not line.startswith("#") for line in status.splitlines())
    return GitState(commit, _branch_of_ci(os.environ) if branch in (None, "(detached)") else branch, dirty)


def _git(directory: Path, until: float, *arguments: str) -> str | None:
    # A repository's own configuration may name a program that watches files; none is started.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        # git is not installed, or the directory is gone.
        return None
    try:
        output, _ = process.communicate(timeout=max(0.0, until - clocks.monotonic()))
    except subprocess.TimeoutExpired:
        # It is not waited for: a process that waits for a drive does not end when it is killed.
        process.kill()
        return None
    return output.decode(errors="replace") if process.returncode == 0 else None


def _branch_of_ci(environment: Mapping[str, str]) -> str | None:
    return next((environment[name] for name in _BRANCH_VARIABLES if environment.get(name)), None)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container may run as a user without a name.
        return str(os.getuid()) if hasattr(os, "getuid") else None


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # A checkout that is only on the path.
            continue
    return versions


def _named(arguments: Sequence[str]) -> list[str]:
    """The arguments of a process, with the command as a user types it."""
    if not arguments:
        return []
    program = Path(arguments[0])
    if program.name == "__main__.py":
        return ["python", "-m", program.parent.name, *arguments[1:]]
    return [program.name, *arguments[1:]]
