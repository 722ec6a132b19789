"""Whatever ends a command, no experiment stays `running` for good, and the same command goes on with it."""

from __future__ import annotations

import signal

import pytest

from tests.support.project import Project, wait_until

# The dataset is slow, so that a command can be ended while it is read; the rows are slow too.
EVALUATION = """
import time
from doteval import Score, foreach

def numbers():
    for number in range(12):
        if number == 10:
            (here / "reading").touch()
            time.sleep(SLOW_DATASET)
        yield (number,)

@foreach("number", numbers())
async def eval_slow(number):
    import asyncio
    await asyncio.sleep(SLOW_ROWS)
    return Score("ok", True, ["accuracy"])
"""

COMMANDS = {
    "pytest": ("pytest", ("-q", "-p", "no:cacheprovider", "eval_it.py", "--experiment", "x")),
    "submit": ("doteval", ("submit", "eval_it.py", "--experiment", "x", "--workers", "1")),
}


def write(project: Project, *, dataset: float, rows: float) -> None:
    text = f"from pathlib import Path\nhere = Path(__file__).parent\nSLOW_DATASET, SLOW_ROWS = {dataset}, {rows}\n"
    project.write("eval_it.py", text + EVALUATION)


def status(project: Project) -> tuple[str, bool]:
    """The status of the only evaluation, and whether nobody runs it."""
    (evaluation,) = project.json("status", "x")["evaluations"]
    return evaluation["status"], evaluation["abandoned"]


# The worker processes of a killed submitter end their rows in flight first, so that case takes no other course.
@pytest.mark.parametrize(("command", "moment"), [("pytest", "dataset"), ("pytest", "rows"), ("submit", "dataset")])
def test_a_killed_command_is_said_to_run_no_more(project: Project, command: str, moment: str) -> None:
    write(project, dataset=600 if moment == "dataset" else 0, rows=600 if moment == "rows" else 0)
    module, arguments = COMMANDS[command]
    with project.started(*arguments, module=module) as process:
        wait_until((project.path / "reading").exists, what="a dataset that is being read")
        wait_until(lambda: status(project) == ("running", False), seconds=60, what="a running evaluation")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        wait_until(lambda: status(project) == ("running", True), seconds=60, what="an evaluation that nobody runs")
        assert "by nobody" in project.run("list").stdout
        assert "nobody" in project.run("watch", "x", check=5).stderr
    write(project, dataset=0, rows=0)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--allow-changed")
    assert status(project) == ("completed", False)
    assert len(project.records("x")["eval_slow"]) == 12


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_a_dataset_is_read_leaves_nothing_running(project: Project, command: str) -> None:
    write(project, dataset=600, rows=0)
    module, arguments = COMMANDS[command]
    with project.started(*arguments, module=module) as process:
        wait_until((project.path / "reading").exists, what="a dataset that is being read")
        wait_until(lambda: project.json("status", "x")["evaluations"], seconds=60, what="an evaluation")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == (2 if command == "pytest" else 130)
    assert status(project)[0] != "running"
