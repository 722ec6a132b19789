"""pytest's own function fixtures belong to one row, as they do to one test."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.plugin.conftest import Evaluate

SOURCE = """
import logging, os
from pathlib import Path
ok = Score("ok", True, ["accuracy"])
rows = [(i,) for i in range(4)]

def log_and_look(i, caplog):
    logging.getLogger("rows").warning("row %d", i)
    assert caplog.messages == [f"row {i}"], caplog.messages
    assert caplog.get_records("call")[0].getMessage() == f"row {i}"
    assert f"row {i}" in caplog.text
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("rows").debug("more")
    assert len(caplog.records) == 2

def print_and_look(i, capsys):
    print("row", i)
    assert capsys.readouterr().out == f"row {i}\\n"

def set_and_look(i, monkeypatch):
    assert "ROW" not in os.environ
    monkeypatch.setenv("ROW", str(i))
    assert os.environ["ROW"] == str(i)

def path_of_ones_own(i, tmp_path):
    assert not list(tmp_path.iterdir())
    (tmp_path / str(i)).touch()

@foreach("i", rows)
def eval_caplog(i, caplog):
    log_and_look(i, caplog)
    return ok

@foreach("i", rows)
async def eval_caplog_async(i, caplog):
    await asyncio.sleep(0)
    log_and_look(i, caplog)
    return ok

@foreach("i", rows)
def eval_capsys(i, capsys):
    print_and_look(i, capsys)
    return ok

@foreach("i", rows, concurrency=3)
def eval_capsys_in_threads(i, capsys):
    print_and_look(i, capsys)
    return ok

@foreach("i", rows)
async def eval_monkeypatch(i, monkeypatch):
    set_and_look(i, monkeypatch)
    await asyncio.sleep(0.001)
    assert os.environ["ROW"] == str(i)
    return ok

@foreach("i", rows)
async def eval_tmp_path(i, tmp_path):
    path_of_ones_own(i, tmp_path)
    await asyncio.sleep(0)
    return ok

@foreach("i", rows)
def eval_recwarn(i, recwarn):
    import warnings
    warnings.warn(f"of row {i}")
    assert len(recwarn) == 1
    return ok

@foreach("i", rows)
def eval_property(i, record_property):
    record_property(f"row{i}", i)
    return ok

@pytest.fixture
def chained(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

@foreach("i", rows)
def eval_chained(i, chained, tmp_path):
    assert Path.cwd() == tmp_path
    return ok

def test_after(caplog, capsys):
    assert "ROW" not in os.environ
    logging.getLogger("rows").warning("of the test")
    assert caplog.messages == ["of the test"]
    print_and_look(1, capsys)
"""


@pytest.mark.parametrize("capture", ["-s", "--capture=fd"])
def test_each_row_has_its_own_fixtures_of_pytest(evaluate: Evaluate, pytester: pytest.Pytester, capture: str) -> None:
    thresholds = [f"--fail-under={name}:ok.accuracy=1" for name in ("eval_capsys", "eval_monkeypatch")]
    result = evaluate(
        SOURCE, capture, "--junitxml=junit.xml", "-o", "junit_family=xunit1", *thresholds, "--max-errors=0"
    )
    result.assert_outcomes(passed=10, warnings=3)
    result.stdout.fnmatch_lines(
        ["*PytestWarning: capsys can serve one row at a time, so that rows do not overlap here"]
    )
    tree = ElementTree.parse(pytester.path / "junit.xml")
    case = next(each for each in tree.iter("testcase") if each.get("name") == "eval_property")
    assert [(each.get("name"), each.get("value")) for each in case.iter("property")] == [
        (f"row{i}", str(i)) for i in range(4)
    ]
