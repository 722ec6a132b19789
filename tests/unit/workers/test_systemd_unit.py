"""The systemd unit of workers/: systemd accepts it, and it stops and confines a service as its comments say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "workers" / "systemd" / "doteval-worker.service"
# systemd's own scale: 0 is a service that can do nothing, 10 one that can do everything.
MOST_EXPOSED = 2.0


def settings() -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a command that this machine has."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail("systemd-analyze, of Debian's package systemd, is not installed")
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / UNIT.name
    command = Path(sys.executable).with_name("doteval")
    unit.write_text(UNIT.read_text().replace("/opt/doteval/bin/doteval", str(command)))
    return unit


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


@pytest.mark.slow("needs systemd-analyze, of Debian's package systemd")
def test_systemd_accepts_it(installed: Path) -> None:
    ran = analyze("verify", str(installed))
    about_it = [line for line in ran.stderr.splitlines() if UNIT.name in line]
    assert about_it == [], ran.stderr


@pytest.mark.slow("needs systemd-analyze, of Debian's package systemd")
def test_it_is_confined(installed: Path) -> None:
    ran = analyze("security", "--offline=true", "--no-pager", str(installed))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert exposure, ran.stdout + ran.stderr
    assert float(exposure[1]) <= MOST_EXPOSED, ran.stdout


def test_rows_in_flight_may_end_and_a_worker_that_died_comes_back() -> None:
    unit = settings()
    assert unit["KillMode"] == ["mixed"]
    assert unit["KillSignal"] == ["SIGTERM"]
    assert unit["TimeoutStopSec"] == ["15min"]
    assert unit["Restart"] == ["on-failure"]
    # What no restart mends: see doteval.errors.
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert unit["OOMPolicy"] == ["continue"]
    assert unit["User"] == ["doteval"]
