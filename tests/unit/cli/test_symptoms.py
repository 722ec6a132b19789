"""What docs/troubleshooting.md shows of commands that need neither worker processes nor a model."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from doteval.core.experiments import Ending, EvaluationSpec, EvaluationStatus
from doteval.core.states import EvaluationEnd
from doteval.datasets.opening import open_dataset
from doteval.errors import DatasetError
from doteval.store import Store
from doteval.store.driver_errors import store_error
from doteval.store.url import locate
from tests.support.cli import CommandLine
from tests.support.troubleshooting import assert_shown

pytestmark = pytest.mark.usefixtures("without_settings")


@dataclass(frozen=True)
class Symptom:
    """A section of the page, the command that shows it on the store "results.db", and its exit code."""

    section: str
    command: tuple[str, ...]
    code: int


@pytest.mark.parametrize(
    "symptom",
    [
        Symptom("experiment-not-found", ("show", "absent", "--storage", "results.db"), 2),
        Symptom("filter-not-read", ("show", "alpha", "--where", "row.q = geo", "--storage", "results.db"), 2),
        Symptom("rows-are-slow", ("usage", "alpha", "--storage", "results.db"), 0),
        Symptom("old-replies", ("usage", "alpha", "--storage", "results.db"), 0),
        Symptom("store-large", ("db", "size", "--storage", "results.db"), 0),
        Symptom("flower-empty", ("flower",), 2),
    ],
    ids=lambda symptom: symptom.section,
)
@pytest.mark.usefixtures("results")
def test_one_command(doteval_: CommandLine, symptom: Symptom) -> None:
    ran = doteval_(*symptom.command)
    assert ran.code == symptom.code, ran.err
    assert_shown(symptom.section, ran.out + ran.err)
    assert ("More: doteval docs troubleshooting#" in ran.err) is (symptom.code != 0)


def test_a_misspelt_setting(doteval_: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.doteval]\nstorag = "results.db"\n')
    ran = doteval_("list")
    assert ran.code == 2
    assert_shown("unknown-setting", ran.err)


@pytest.mark.usefixtures("results")
def test_a_port_that_another_program_has(doteval_: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ran = doteval_("view", "--port", str(other.getsockname()[1]), "--storage", "results.db")
    assert ran.code == 2
    assert_shown("port-taken", ran.err)


def test_a_dataset_that_is_not_there() -> None:
    with pytest.raises(DatasetError) as raised:
        open_dataset("absent.csv", base=Path.cwd())
    assert_shown("dataset-not-read", raised.value)


def test_a_store_of_a_newer_doteval(doteval_: CommandLine, results: str) -> None:
    with sqlite3.connect(results) as connection:
        connection.execute("UPDATE doteval_version SET version_num = '9999'")
    ran = doteval_("list", "--storage", results)
    assert ran.code == 4
    assert_shown("store-version", ran.err)


def test_a_store_that_another_program_keeps_locked(results: str) -> None:
    with sqlite3.connect(results, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ours = sqlite3.connect(results, timeout=0.0, isolation_level=None)
        with closing(ours), pytest.raises(sqlite3.OperationalError) as raised:
            ours.execute("BEGIN IMMEDIATE")
    assert_shown("store-locked", store_error(raised.value, locate(results)))


def test_an_experiment_of_which_nothing_ran(doteval_: CommandLine, tmp_path: Path) -> None:
    path = str(tmp_path / "skipped.db")
    with Store.open(path) as store:
        spec = EvaluationSpec("eval_it.py", "eval_good", ("a", "b"))
        evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
        store.evaluations.end(evaluation.id, Ending(EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED, "no GPU here"))
    ran = doteval_("watch", "x", "--storage", path)
    assert ran.code == 7
    assert_shown("nothing-ran", ran.err)


def test_an_error_that_nobody_expected(doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Store, "open", broken)
    ran = doteval_("list")
    assert ran.code == 70
    assert_shown("unexpected-error", ran.err)
