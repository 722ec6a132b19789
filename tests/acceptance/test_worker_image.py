"""workers/Dockerfile is built, and the image it makes is run: as its user, read-only, without privileges."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doteval.store import Store
from tests.support.containers import ROOT, Compose, Container, Image
from tests.support.images import PROGRAMS, Buildah, base_of
from tests.support.project import wait_until

DOCKERFILE = ROOT / "workers" / "Dockerfile"
ROWS = 200
EVALUATION = f"""
import os
import time

from doteval import Result, foreach
from doteval.evaluators import exact_match

@foreach("number", [(number,) for number in range({ROWS})])
def eval_image(number):
    time.sleep(0.05)
    return Result(exact_match(os.getuid(), 10001), model_response=str(os.getuid()))
"""


@pytest.fixture
def buildah() -> Iterator[Buildah]:
    if os.geteuid() != 0:
        pytest.skip("only root may build images and make containers")
    for program in (*PROGRAMS, "ip", "nsenter", "unshare", "setpriv", "redis-server"):
        if shutil.which(program) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{program} is not installed")
            pytest.skip(f"{program} is not installed")
    directory = Path(tempfile.mkdtemp(prefix="doteval-image-"))
    buildah = Buildah(directory)
    yield buildah
    buildah.close()


@pytest.mark.faults
def test_the_image_is_built_and_runs_rows(buildah: Buildah, tmp_path: Path) -> None:
    buildah.make_base(base_of(DOCKERFILE))
    built = buildah.build(DOCKERFILE, ROOT)
    config = buildah.config(built)
    root = buildah.mount(built)
    image = Image(
        user=int(config["User"]),
        directory=config["WorkingDir"],
        entrypoint=tuple(config["Entrypoint"]),
        environment=dict(pair.split("=", 1) for pair in config["Env"]),
        command=tuple(config["Cmd"]),
        root=root,
    )
    check_contents(root, image)
    evaluations = tmp_path / "evals"
    evaluations.mkdir()
    (evaluations / "eval_image.py").write_text(EVALUATION)
    with Compose(tmp_path, services(evaluations), {"doteval": image, "redis": Image(10002, "/data")}) as stack:
        results = stack.volume("results", image.user) / "results.db"
        # Redis, submitter and worker processes all come from the image here.
        stack.run("alone", "submit", "/evals", "--experiment", "alone", "--workers", "2")
        check_results(results, "alone")
        # An operator has nothing else at hand: the image backs a store up, and holds the manual.
        assert "Copied to" in stack.run("alone", "db", "backup", "/results/backup.db")
        stack.run("alone", "db", "copy", "/results/results.db", "/results/copy.db")
        for name in ("backup.db", "copy.db"):
            check_results(results.with_name(name), "alone")
        assert "pg_restore" in stack.run("alone", "docs", "guides/backup")

        redis = stack.start("redis")
        wait_until(lambda: "PONG" in redis.run(["redis-cli", "ping"]).stdout, what="Redis")
        worker = stack.start("worker")
        # What the image says itself: its command serves, and its check asks the service.
        check = config["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        wait_until(lambda: worker.run(check[1:]).returncode == 0, what="a healthy worker", seconds=120)
        wait_until(lambda: is_ready(worker), what="a ready worker", seconds=120)
        assert is_confined_process_1(worker)
        stack.run("cli", "submit", "/evals", "--experiment", "served")
        check_results(results, "served")

        # In the middle of its rows the worker is stopped, as an engine stops it.
        stack.run("cli", "submit", "/evals", "--experiment", "stopped", "--detach")
        wait_until(lambda: ended(results, "stopped") > 0, what="the first results")
        assert worker.stop(120) == 0, worker.said()
        stored = ended(results, "stopped")
        assert 0 < stored < ROWS


def check_contents(root: Path, image: Image) -> None:
    """The image holds what doteval needs, and nothing that only its build needed."""
    ran = subprocess.run(
        ["chroot", str(root), *as_in(image), "python", "-c", "import doteval.worker; print(doteval.__file__)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    packages = root / "opt" / "doteval" / "lib"
    assert Path(ran.stdout.strip()).is_relative_to("/opt/doteval/lib")
    assert not list(packages.glob("*/site-packages/workers"))
    for left_behind in ("pip", "hatchling", "pytest_xdist", "mypy"):
        assert not list(packages.glob(f"*/site-packages/{left_behind}")), left_behind
    assert not (root / "build").exists()
    assert not (root / "opt" / "tools").exists()
    # The user may write nowhere but in the places that are made for it.
    own = subprocess.run(
        ["find", str(root), "-xdev", "-user", str(image.user), "-not", "-type", "l"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert sorted(own) == [f"{root}/evals", f"{root}/var/lib/flower"]
    secrets = subprocess.run(
        ["find", str(root / "etc"), "-name", "pip.conf", "-size", "+0"], capture_output=True, text=True, check=True
    )
    assert secrets.stdout == ""


def as_in(image: Image) -> list[str]:
    return ["env", "-i", *(f"{name}={value}" for name, value in image.environment.items())]


def services(evaluations: Path) -> dict[str, Any]:
    """A compose file of one worker, in Compose's own form."""
    doteval = {
        "image": "doteval:local",
        "read_only": True,
        "volumes": [
            {"type": "bind", "source": str(evaluations), "target": "/evals", "read_only": True},
            {"type": "volume", "source": "results", "target": "/results"},
        ],
        "environment": {"DOTEVAL_STORAGE": "/results/results.db"},
    }
    served = {
        **doteval,
        "environment": {
            "DOTEVAL_STORAGE": "/results/results.db",
            "DOTEVAL_BROKER": "redis://redis:6379/0",
            "DOTEVAL_PROCESSES": "2",
        },
    }
    redis = {
        "image": "redis",
        "command": ["redis-server", "--protected-mode", "no"],
        "environment": {"PATH": os.defpath},
        "volumes": [{"type": "volume", "source": "redis", "target": "/data"}],
    }
    return {"alone": doteval, "worker": served, "cli": served, "redis": redis}


def check_results(results: Path, experiment: str) -> None:
    with Store.open(str(results)) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find(experiment))
        assert (evaluation.counts.done, evaluation.counts.failed) == (ROWS, 0)
        users = {record.outcome.model_response for record in store.results.records(evaluation.id)}
    assert users == {"10001"}


def ended(results: Path, experiment: str) -> int:
    with Store.open(str(results)) as store:
        return sum(each.counts.finished for each in store.evaluations.of(store.experiments.find(experiment)))


def is_ready(worker: Container) -> bool:
    assert worker.process.poll() is None, worker.said()
    try:
        with urllib.request.urlopen(f"http://{worker.address}:8080/ready", timeout=5) as reply:
            return bool(json.load(reply)["ready"])
    except (urllib.error.URLError, ConnectionError):
        return False


def is_confined_process_1(worker: Container) -> bool:
    status = Path(f"/proc/{worker.pid}/status").read_text()
    command = Path(f"/proc/{worker.pid}/cmdline").read_text()
    return bool(
        re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
        and re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
        and re.search(r"^NSpid:\s+\d+\s+1$", status, re.MULTILINE)
        and "doteval" in command
        and worker.run(["sh", "-c", ": > /evals/new"]).returncode != 0
        and worker.run(["sh", "-c", ": > /opt/doteval/new"]).returncode != 0
        and worker.run(["sh", "-c", ": > /tmp/new"]).returncode == 0
    )
