"""Queues and devices: their names, the marks of evaluations, and which evaluations a worker serves."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from doteval.core.queues_and_devices import check_queue, device_of, split_devices, split_queues, worker_command_for
from doteval.errors import EvaluationFileError, UsageError
from doteval.pytest_runtime.items import EvaluationItem, queue_of, served_items
from doteval.settings import load_settings
from tests.support.cli import CommandLine
from tests.support.commands import Commands

EVALUATIONS = """
import pytest
from doteval import Score, foreach

pytestmark = pytest.mark.doteval(queue="module")

@foreach("i", [(1,)])
def eval_plain(i):
    return Score("ok", True, ["accuracy"])

@pytest.mark.doteval(queue="function")
@foreach("i", [(1,)])
def eval_own(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", [(1,)])
@pytest.mark.doteval(queue="below")
def eval_below(i):
    return Score("ok", True, ["accuracy"])

@pytest.mark.doteval(queue="function")
@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.doteval(queue="parameter"))])
@foreach("i", [(1,)])
def eval_sized(i, size):
    return Score("ok", True, ["accuracy"])

@pytest.mark.doteval(queue="class")
class EvalA:
    @foreach("i", [(1,)])
    def eval_in(self, i):
        return Score("ok", True, ["accuracy"])

    @pytest.mark.doteval
    @foreach("i", [(1,)])
    def eval_bare(self, i):
        return Score("ok", True, ["accuracy"])

    @pytest.mark.doteval(queue="function")
    @foreach("i", [(1,)])
    def eval_own(self, i):
        return Score("ok", True, ["accuracy"])
"""


def collect(pytester: pytest.Pytester, text: str) -> dict[str, EvaluationItem]:
    pytester.makepyfile(eval_it=textwrap.dedent(text))
    items, _ = pytester.inline_genitems("eval_it.py")
    return {item.evaluation_name: item for item in items if isinstance(item, EvaluationItem)}


def test_the_nearest_mark_counts(pytester: pytest.Pytester) -> None:
    found = {name: queue_of(item) for name, item in collect(pytester, EVALUATIONS).items()}
    assert found == {
        "eval_plain": "module",
        "eval_own": "function",
        "eval_below": "below",
        "eval_sized[small]": "function",
        "eval_sized[large]": "parameter",
        "EvalA::eval_in": "class",
        "EvalA::eval_bare": "class",
        "EvalA::eval_own": "function",
    }


@pytest.fixture(scope="module")
def refused_marks(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str]:
    """The exit code and the output of one pytest on a file for each mark."""
    directory = tmp_path_factory.mktemp("marks")
    for number, mark in enumerate(UNUSABLE):
        (directory / f"eval_{number}.py").write_text(
            "import pytest\n"
            "from doteval import Score, foreach\n"
            f"@pytest.mark.doteval({mark})\n"
            '@foreach("i", [(1,)])\n'
            "def eval_it(i):\n"
            '    return Score("ok", True, ["accuracy"])\n'
        )
    files = [f"eval_{number}.py" for number in range(len(UNUSABLE))]
    ran = commands.run("pytest", files, directory=directory, environment=os.environ, timeout=180)
    return ran.returncode, ran.stdout


UNUSABLE = {
    'queue=""': "is no name of a queue",
    "queue=3": "3 is no name of a queue",
    'queue="a,b"': "'a,b' is no name of a queue",
    'qeue="gpu"': "it does not take qeue",
    '"gpu"': "it does not take 'gpu'",
}


@pytest.mark.parametrize("mark", UNUSABLE)
def test_a_mark_that_cannot_be_used_is_an_error_of_the_file(refused_marks: tuple[int, str], mark: str) -> None:
    code, printed = refused_marks
    assert code == pytest.ExitCode.INTERRUPTED
    name = f"eval_{list(UNUSABLE).index(mark)}.py::eval_it"
    pytest.LineMatcher(printed.splitlines()).fnmatch_lines(
        [f"*the mark doteval of {name} cannot be used: *{UNUSABLE[mark]}*"]
    )
    assert "Traceback" not in printed


ITEMS = """
import pytest
from doteval import Score, foreach

@pytest.mark.doteval(queue="gpu")
@foreach("i", [(1,)])
def eval_gpu(i):
    return Score("ok", True, ["accuracy"])

@pytest.mark.doteval(queue="lab")
@foreach("i", [(1,)])
def eval_lab(i):
    return Score("ok", True, ["accuracy"])

@foreach("i", [(1,)])
def eval_plain(i):
    return Score("ok", True, ["accuracy"])
"""


@pytest.mark.parametrize(
    ("queues", "meant"),
    [
        (("doteval",), ["eval_plain"]),
        (("team",), ["eval_plain"]),
        (("gpu",), ["eval_gpu"]),
        (("gpu", "lab"), ["eval_gpu", "eval_lab"]),
        (("lab", "doteval"), ["eval_lab", "eval_plain"]),
    ],
)
def test_evaluations_that_a_worker_serves(pytester: pytest.Pytester, queues: tuple[str, ...], meant: list[str]) -> None:
    items = list(collect(pytester, ITEMS).values())
    assert [item.evaluation_name for item in served_items(items, queues)] == meant


def test_queues_are_split_at_commas() -> None:
    assert split_queues("gpu, team.evals") == ("gpu", "team.evals")
    assert worker_command_for("doteval") == "doteval worker PATH"
    assert worker_command_for("gpu") == "doteval worker PATH --queue gpu"


@pytest.mark.parametrize("name", ["", " ", "a b", "a,b", "gpu~1", "a\n", "q" * 201, None, 7, b"gpu"])
def test_names_that_no_queue_can_have(name: object) -> None:
    with pytest.raises(UsageError, match="is no name of a queue") as raised:
        check_queue(name)
    assert len(str(raised.value)) < 300


def test_devices_are_dealt_in_turn() -> None:
    devices = split_devices("0, 2,GPU-8f6d-11/3,MIG-1")
    assert devices == ("0", "2", "GPU-8f6d-11/3", "MIG-1")
    assert [device_of(devices[:3], number) for number in range(1, 8)] == [*devices[:3], *devices[:3], "0"]
    assert device_of((), 3) is None


@pytest.mark.parametrize("text", ["", "0,", "-1", "cuda:0", "0;1", "0 1", "٣", "GPU", "1.5", "0,1,0", "9" * 500])
def test_lists_that_name_no_devices(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        split_devices(text)
    assert raised.value.remedy
    assert len(str(raised.value)) < 300


def test_an_error_names_where_a_wrong_list_was_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings().queues == ("doteval",)
    assert load_settings(queue="gpu,lab").queues == ("gpu", "lab")
    assert load_settings(devices="0,1").dealt_devices == ("0", "1")
    assert load_settings().dealt_devices == ()
    with pytest.raises(UsageError, match="'gpu,lab' names 2"):
        load_settings(queue="gpu,lab").only_queue  # noqa: B018
    monkeypatch.setenv("DOTEVAL_DEVICES", "0,x")
    with pytest.raises(UsageError, match="the environment variable DOTEVAL_DEVICES cannot be used: 'x' is no device"):
        load_settings()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("worker", ".", "--broker", "redis://h", "--devices", "0,,1"), "'' is no device"),
        (("worker", ".", "--broker", "redis://h", "--devices", "1,1"), "the device '1' is named twice"),
        (("worker", ".", "--broker", "redis://h", "--queue", "a b"), "'a b' is no name of a queue"),
        (("worker", ".", "--broker", "redis://h", "--queue", "a", "--queue", "a"), "the queue 'a' is named twice"),
        (("submit", ".", "--queue", "gpu,lab"), "rows go to one queue"),
        (("submit", ".", "--broker", "redis://:hush@h", "--devices", "0"), "--devices is for local worker processes"),
    ],
)
def test_an_error_fits_on_one_screen(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = CommandLine(capsys)(*arguments)
    assert ran.code == 2
    assert says in " ".join(ran.err.split())
    assert len(ran.err.splitlines()) < 12
    assert "hush" not in ran.err


def test_a_mark_is_named_with_its_evaluation(pytester: pytest.Pytester) -> None:
    (item,) = collect(pytester, ITEMS.split('@pytest.mark.doteval(queue="lab")')[0]).values()
    item.add_marker(pytest.mark.doteval(queue=1), append=False)
    with pytest.raises(EvaluationFileError, match=r"eval_it\.py::eval_gpu"):
        queue_of(item)
