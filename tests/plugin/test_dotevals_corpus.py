"""The documentation and examples of dotevals run with doteval: only the name of the package is changed.

The releases are downloaded into `.benchmarks/` the first time. Every piece of Python code in them is an evaluation file
or a script; `tests/support/dotevals/exceptions.py` lists those that do not run, with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.environments import DIRECTORY
from tests.support.dotevals.corpus import write_files
from tests.support.dotevals.exceptions import EXCEPTIONS

RELEASES = ("0.23.0", "0.26.0", "0.28.3")
SUPPORT = Path(__file__).parents[1] / "support" / "dotevals"


def release(version: str) -> Path:
    """The directory of a release's source distribution, which holds its documentation."""
    unpacked = DIRECTORY / "dotevals-sources" / f"dotevals-{version}"
    if unpacked.is_dir():
        return unpacked
    unpacked.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "dotevals"]
    done = subprocess.run(
        [*command, "--dest", unpacked.parent, f"dotevals=={version}"], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        reason = f"dotevals {version} cannot be downloaded, no package index answers: {done.stderr[-300:]}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tarfile.open(f"{unpacked}.tar.gz") as archive:
        archive.extractall(unpacked.parent, filter="data")
    return unpacked


@pytest.mark.slow("test_compatibility tests the names that files import; the documentation is in a package index")
def test_what_the_documentation_of_dotevals_shows_runs(tmp_path: Path) -> None:
    blocks = write_files([release(version) for version in RELEASES], tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "output.txt").open("w") as output:
        subprocess.run(
            [sys.executable, SUPPORT / "running.py", tmp_path],
            check=True,
            env=environment,
            stdout=output,
            stderr=output,
            timeout=300,
        )
    found = json.loads((tmp_path / "found.json").read_text())
    problems = {blocks[file]: problem for file, problem in found["problems"].items()}
    assert {name: problem for name, problem in problems.items() if name not in EXCEPTIONS} == {}
    # An exception that runs is none.
    assert sorted(EXCEPTIONS.keys() - problems) == []
    # The pieces that are no evaluation define something, or are scripts.
    assert len(found["rows"]) >= 95
    assert len(blocks) >= 250
