"""Checks of runs in batch mode against a mock server, and kills of their processes."""

from __future__ import annotations

import contextlib
import os
import signal

from doteval.mock_openai import MockOpenAI
from tests.support.project import Process, Project, leftover_processes


def use(project: Project, mock: MockOpenAI) -> None:
    """Have the clients of a project send their requests to a mock server."""
    project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "sk-a-key-of-the-tests"}


def check_paid_once(
    project: Project, mock: MockOpenAI, requests: int, rows: dict[str, int], *, failed: int = 0
) -> None:
    """Each row has one result; each request was paid once, in a batch; its reply and its usage are stored once.

    rows: how many are done, by evaluation. failed: how many others have failed.
    """
    stats = mock.stats()
    assert stats["requests"] == 0, "a request was sent live"
    # The provider has paid-for replies that it has put into no file; nobody can know of them.
    lost = stats["faults"].get("lost", 0)
    assert stats["repeated_replies"] <= lost
    assert requests <= stats["batch"]["replies"] <= requests + lost
    shown = project.json("show", "x")["evaluations"]
    assert {each["name"]: each["rows"]["done"] for each in shown} == rows
    assert sum(each["rows"]["failed"] for each in shown) == failed
    used = project.json("usage", "x")["models"]
    for name in ("prompt_tokens", "completion_tokens"):
        spent = sum(each["spent"][name] for each in used)
        assert sum(each["kept"][name] for each in used) == spent
        assert lost or spent == stats["batch"][name]
    if failed or lost:
        return
    with project.store() as store:
        evaluations = store.evaluations.of(store.experiments.find("x"))
        assert store.calls.count([each.id for each in evaluations]) == requests


def kill_workers(project: Project) -> None:
    """Kill the worker processes of a project."""
    # A process that was killed before may not be noted as such, and its id may be another one's by now.
    here = set(leftover_processes(project.path))
    for worker in project.workers():
        if worker.info.pid in here:
            # It may have ended since.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.info.pid, signal.SIGKILL)


def finish(submitter: Process, project: Project, seconds: float = 180) -> None:
    """Wait until a submitter has ended well."""
    assert submitter.wait(seconds) == 0, project.output()
