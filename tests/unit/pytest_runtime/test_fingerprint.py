"""Fingerprints: which files an evaluation consists of, and whether two machines have the same files."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.fingerprint import differing_files, fingerprint, specify
from tests.unit.conftest import InSession

EVAL = """
from doteval import Score, foreach

@foreach("x", [(1,)])
def eval_it(x):
    return Score("ok", True)
"""


def prints(collected: Collected) -> dict[str, str]:
    (item,) = collected.items
    return fingerprint(item)


def test_the_evaluation_file_counts_and_its_neighbours_do_not(in_session: InSession) -> None:
    files = {"eval_it.py": EVAL, "eval_other.py": "", "helpers.py": "", "data.csv": "x\n1\n"}
    assert list(in_session(prints, files, "eval_it.py")) == ["eval_it.py"]


def test_imports_are_followed_transitively_and_in_functions(in_session: InSession) -> None:
    files = {
        "eval_it.py": "import first\n" + EVAL + "\ndef late():\n    from third import value\n",
        "first.py": "from second import *\nimport json",
        "second.py": "import third\nimport first",
        "third.py": "value = 1",
        "unused.py": "",
    }
    assert list(in_session(prints, files)) == ["eval_it.py", "first.py", "second.py", "third.py"]


DEEP = {"package/__init__.py", "package/inner/__init__.py", "package/inner/deep.py"}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import package", {"package/__init__.py"}),
        ("from package import side", {"package/__init__.py", "package/side.py"}),
        ("import package.inner.deep", DEEP),
        ("from package.inner import deep as d", DEEP),
        ("from package.inner.deep import up", DEEP),
    ],
)
def test_a_package_counts_with_the_imports_of_its_init(
    in_session: InSession, statement: str, expected: set[str]
) -> None:
    files = {
        "eval_it.py": statement + "\n" + EVAL,
        "package/__init__.py": "",
        "package/side.py": "",
        "package/inner/__init__.py": "",
        "package/inner/deep.py": "up = 1",
        "package/unused.py": "",
    }
    assert in_session(prints, files).keys() == {"eval_it.py"} | expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("from . import near", {"evals/near.py"}),
        ("from .near import value", {"evals/near.py"}),
        ("from .. import far", {"far.py"}),
        ("from ..other.thing import value", {"other/__init__.py", "other/thing.py"}),
        ("from .sub import near", {"evals/sub/__init__.py", "evals/sub/near.py"}),
    ],
)
def test_relative_imports(in_session: InSession, statement: str, expected: set[str]) -> None:
    files = {
        "pyproject.toml": "[tool.pytest.ini_options]\n",
        "project/__init__.py": "",
        "project/far.py": "",
        "project/other/__init__.py": "",
        "project/other/thing.py": "value = 1",
        "project/evals/__init__.py": "",
        "project/evals/near.py": "value = 1",
        "project/evals/sub/__init__.py": "from . import near",
        "project/evals/sub/near.py": "",
        "project/evals/eval_it.py": statement + "\n" + EVAL,
    }
    # Importing a module imports the packages that it lies in.
    always = {"project/__init__.py", "project/evals/__init__.py", "project/evals/eval_it.py"}
    assert in_session(prints, files).keys() == always | {f"project/{path}" for path in expected}


def test_every_conftest_up_to_the_root_counts_with_its_imports(in_session: InSession) -> None:
    files = {
        "pyproject.toml": "[tool.pytest.ini_options]\n",
        "conftest.py": "import models",
        "models.py": "",
        "evals/conftest.py": "",
        "evals/eval_it.py": EVAL,
        "evals/below/conftest.py": "",
        "elsewhere/conftest.py": "",
    }
    found = in_session(prints, files)
    assert list(found) == ["conftest.py", "evals/conftest.py", "evals/eval_it.py", "models.py"]


def test_the_root_conftest_counts_when_pytest_starts_in_a_subfolder(in_session: InSession) -> None:
    files = {"pyproject.toml": "[tool.pytest.ini_options]\n", "conftest.py": "", "evals/eval_it.py": EVAL}
    assert list(in_session(prints, files, "evals/eval_it.py")) == ["conftest.py", "evals/eval_it.py"]


def test_doteval_itself_does_not_count_below_the_root(
    in_session: InSession, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doteval.pytest_runtime.fingerprint._OWN_PACKAGE", pytester.path / "own")
    files = {"eval_it.py": "import own.inner\n" + EVAL, "own/__init__.py": "", "own/inner.py": ""}
    assert list(in_session(prints, files)) == ["eval_it.py"]


def test_installed_packages_do_not_count(
    in_session: InSession, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = pytester.path / "venv" / "lib" / "site-packages"
    monkeypatch.syspath_prepend(installed)
    files = {
        "eval_it.py": "import installed, pytest, doteval\n" + EVAL,
        "venv/lib/site-packages/installed.py": "",
    }
    assert list(in_session(prints, files, "eval_it.py")) == ["eval_it.py"]


def test_files_outside_of_the_root_do_not_count(
    in_session: InSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    files = {"pyproject.toml": "[tool.pytest.ini_options]\n", "evals/eval_it.py": "import outside\n" + EVAL}
    assert list(in_session(prints, files)) == ["evals/eval_it.py"]


def test_the_hash_depends_only_on_the_content(in_session: InSession) -> None:
    before = in_session(prints, {"one/eval_it.py": "import helping\n" + EVAL, "one/helping.py": "a = 1"}, "one")
    same = in_session(prints, {"two/eval_it.py": "import helping\n" + EVAL, "two/helping.py": "a = 1"}, "two")
    other = in_session(prints, {"three/eval_it.py": "import helping\n" + EVAL, "three/helping.py": "a = 2"}, "three")
    values = [list(found.values()) for found in (before, same, other)]
    assert len(before) == 2
    assert values[0] == values[1]
    assert values[0][0] == values[2][0]
    assert values[0][1] != values[2][1]


def test_earlier_collections_do_not_change_the_fingerprint(in_session: InSession) -> None:
    def of_third(collected: Collected) -> dict[str, str]:
        (item,) = (item for item in collected.items if item.path.name == "eval_3.py")
        return fingerprint(item)

    files = {f"eval_{n}.py": f"import shared{n % 2}\n" + EVAL for n in range(4)} | {
        "shared0.py": "import base",
        "shared1.py": "import base",
        "base.py": "",
    }
    found = {
        tuple(in_session(of_third, files, *order).items())
        for order in itertools.permutations(["eval_0.py", "eval_3.py", "eval_2.py"])
    }
    assert len(found) == 1
    assert dict(found.pop()).keys() == {"eval_3.py", "shared1.py", "base.py"}


def test_evaluations_of_a_class_and_parameters_share_a_fingerprint(in_session: InSession) -> None:
    source = """
import pytest
from doteval import Score, foreach

class EvalA:
    @pytest.mark.parametrize("n", [1, 2])
    @foreach("x", [(1,)])
    def eval_it(self, x, n):
        return Score("ok", True)
"""
    specs = in_session(lambda collected: [specify(item) for item in collected.items], {"eval_it.py": source})
    assert [spec.name for spec in specs] == ["EvalA::eval_it[1]", "EvalA::eval_it[2]"]
    assert {(spec.path, spec.columns) for spec in specs} == {("eval_it.py", ("x",))}
    assert specs[0].fingerprint == specs[1].fingerprint


def test_the_specification_has_the_concurrency(in_session: InSession) -> None:
    source = """
from doteval import Score, foreach
from doteval.concurrency import Adaptive

@foreach("x", [(1,)])
def eval_one_after_the_other(x): ...

@foreach("x", [(1,)])
async def eval_several(x): ...

@foreach("x", [(1,)], concurrency=7)
def eval_its_own(x): ...

@foreach("x", [(1,)], concurrency=Adaptive(initial_concurrency=3))
async def eval_adaptive(x): ...
"""
    specs = in_session(lambda collected: [specify(item) for item in collected.items], {"eval_it.py": source})
    concurrency = [(spec.config.concurrency, spec.config.concurrency_is_own) for spec in specs]
    assert concurrency == [(1, False), (10, False), (7, True), (3, True)]


# Comparing.


def test_the_same_files_do_not_differ() -> None:
    files = {"conftest.py": "1", "evals/conftest.py": "2", "evals/deep/conftest.py": "3", "evals/deep/eval_it.py": "4"}
    assert differing_files(files, dict(reversed(files.items()))) == []


def test_differing_files_are_named() -> None:
    theirs = {"eval_it.py": "1", "same.py": "1", "theirs.py": "1", "changed.py": "1"}
    ours = {"eval_it.py": "1", "same.py": "1", "ours.py": "1", "changed.py": "2"}
    assert differing_files(theirs, ours) == ["changed.py", "ours.py", "theirs.py"]


@pytest.mark.parametrize("swapped", [False, True])
def test_root_directories_may_lie_inside_one_another(swapped: bool) -> None:
    outer = {"project/evals/conftest.py": "1", "project/evals/eval_it.py": "2", "project/evals/lib/x.py": "3"}
    inner = {"conftest.py": "1", "eval_it.py": "2", "lib/x.py": "3"}
    pair = (inner, outer) if swapped else (outer, inner)
    assert differing_files(*pair) == []
    inner["lib/x.py"] = "4"
    assert differing_files(*pair) == ["lib/x.py"]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_file_above_the_inner_root_is_one_that_only_one_side_has(swapped: bool) -> None:
    outer = {"conftest.py": "0", "evals/conftest.py": "1", "evals/eval_it.py": "2"}
    inner = {"conftest.py": "1", "eval_it.py": "2"}
    assert differing_files(*((inner, outer) if swapped else (outer, inner))) == ["../conftest.py"]


def test_files_of_the_same_name_in_several_folders_are_distinguished() -> None:
    outer = {"evals/a/eval_it.py": "1", "evals/a/util.py": "2", "evals/b/util.py": "3"}
    inner = {"a/eval_it.py": "1", "a/util.py": "2", "b/util.py": "3"}
    assert differing_files(outer, inner) == []
    assert differing_files(outer, inner | {"b/util.py": "2"}) == ["b/util.py"]


def test_files_with_nothing_in_common_all_differ() -> None:
    assert differing_files({"a.py": "1"}, {"b.py": "1"}) == ["a.py", "b.py"]
    assert differing_files({"a.py": "1"}, {}) == ["a.py"]
    assert differing_files({"my_a.py": "1"}, {"a.py": "1"}) == ["a.py", "my_a.py"]
