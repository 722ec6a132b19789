"""Which functions pytest collects as evaluations, and the names they get."""

from __future__ import annotations

import pytest

from doteval.errors import EvaluationFileError
from doteval.pytest_runtime.embedded_session import Collected
from doteval.pytest_runtime.items import EvaluationItem
from tests.unit.conftest import InSession

HEADER = """
import pytest
from doteval import Score, foreach
"""
ROWS = '@foreach("x", [(1,)])\n'


def names(collected: Collected) -> list[str]:
    return [item.evaluation_name for item in collected.items]


def facts(collected: Collected) -> dict[str, EvaluationItem]:
    return {item.evaluation_name: item for item in collected.items}


def test_functions_with_foreach_in_files_named_eval_are_collected(in_session: InSession) -> None:
    source = (
        HEADER
        + f"""
{ROWS}
def eval_second(x): ...

{ROWS}
async def eval_first(x): ...

{ROWS}
def other(x): ...

def eval_without_rows(x): ...

{ROWS}
def test_marked(x): ...

eval_value = 3
"""
    )
    files = {"eval_it.py": source, "evaluations.py": source, "evalit.py": source, "deep/er/eval_that.py": source}
    found = in_session(lambda collected: [item.nodeid for item in collected.items], files)
    assert found == [
        f"{path}::{name}"
        for path in ("deep/er/eval_that.py", "eval_it.py")
        for name in ("eval_second", "eval_first", "test_marked")
    ]


def test_a_file_on_the_command_line_is_collected_whatever_its_name(in_session: InSession) -> None:
    files = {"mine.py": HEADER + f"{ROWS}\ndef eval_it(x): ...\n", "eval_other.py": ""}
    assert in_session(names, files, "mine.py") == ["eval_it"]


def test_evaluations_in_test_files_are_collected(in_session: InSession) -> None:
    source = HEADER + f"{ROWS}\ndef eval_it(x): ...\n\ndef test_it(): ...\n"

    def body(collected: Collected) -> list[str]:
        return [type(item).__name__ for item in collected.items[0].session.items]

    assert in_session(body, {"test_it.py": source}) == ["EvaluationItem", "Function"]


def test_pytests_own_patterns_collect_no_evaluation_as_a_test(in_session: InSession) -> None:
    ini = "[pytest]\npython_files = eval_*.py test_*.py\npython_functions = eval_* test_*\n"
    source = HEADER + f"{ROWS}\ndef eval_it(x): ...\n\ndef test_it(): ...\n"

    def body(collected: Collected) -> list[tuple[str, bool]]:
        return [(item.name, isinstance(item, EvaluationItem)) for item in collected.items[0].session.items]

    assert in_session(body, {"pytest.ini": ini, "eval_it.py": source}) == [("eval_it", True), ("test_it", False)]


def test_an_imported_evaluation_is_collected_where_it_is_imported(in_session: InSession) -> None:
    files = {
        "shared.py": HEADER + f"{ROWS}\ndef eval_it(x): ...\n",
        "eval_a.py": "from shared import eval_it",
        "eval_b.py": "from shared import eval_it as eval_renamed",
    }
    assert in_session(lambda collected: [item.nodeid for item in collected.items], files) == [
        "eval_a.py::eval_it",
        "eval_b.py::eval_renamed",
    ]


CLASSES = (
    HEADER
    + f"""
class EvalA:
    {ROWS.strip()}
    def eval_it(self, x): ...

    def helper(self): ...

class TestB:
    {ROWS.strip()}
    def eval_it(self, x): ...

    def test_it(self): ...

class Other:
    {ROWS.strip()}
    def eval_it(self, x): ...

class EvalEmpty:
    def eval_without_rows(self): ...

class EvalBase:
    {ROWS.strip()}
    async def eval_base(self, x): ...

class EvalDerived(EvalBase):
    {ROWS.strip()}
    @staticmethod
    def eval_static(x): ...

    class EvalInner:
        {ROWS.strip()}
        def eval_it(self, x): ...
"""
)


def test_classes_named_eval_or_test_are_collected_with_bases_and_inner_classes(in_session: InSession) -> None:
    assert sorted(in_session(names, {"eval_it.py": CLASSES})) == sorted(
        [
            "EvalA::eval_it",
            "TestB::eval_it",
            "EvalBase::eval_base",
            "EvalDerived::eval_base",
            "EvalDerived::eval_static",
            "EvalDerived::EvalInner::eval_it",
        ]
    )


def test_parameters_are_part_of_the_name(in_session: InSession) -> None:
    source = (
        HEADER
        + f"""
@pytest.fixture(params=["gpt", "claude"])
def model(request): ...

@pytest.mark.parametrize("size", [1, pytest.param(2, id="two", marks=pytest.mark.slow)])
{ROWS}
def eval_it(x, model, size): ...

class EvalA:
    @pytest.mark.parametrize("n", ["a::b"])
    {ROWS.strip()}
    def eval_it(self, x, n): ...
"""
    )

    def body(collected: Collected) -> tuple[list[str], list[str]]:
        slow = [item.evaluation_name for item in collected.items if item.get_closest_marker("slow")]
        return names(collected), slow

    found, slow = in_session(body, {"eval_it.py": source})
    assert sorted(found) == [
        "EvalA::eval_it[a::b]",
        "eval_it[claude-1]",
        "eval_it[claude-two]",
        "eval_it[gpt-1]",
        "eval_it[gpt-two]",
    ]
    assert sorted(slow) == ["eval_it[claude-two]", "eval_it[gpt-two]"]


def test_evaluations_can_be_selected(in_session: InSession) -> None:
    source = (
        HEADER
        + f"""
@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
{ROWS}
def eval_slow(x, n): ...

{ROWS}
def eval_quick(x): ...

def test_beside(): ...
"""
    )
    ini = "[pytest]\nmarkers = slow\n"
    files = {"pytest.ini": ini, "eval_it.py": source}
    everything = ["eval_slow[1]", "eval_slow[2]", "eval_quick"]
    assert in_session(names, files, "-m", "doteval", ".") == everything
    assert in_session(names, files, "-m", "slow", ".") == everything[:2]
    assert in_session(names, files, "-k", "quick", ".") == ["eval_quick"]
    assert in_session(names, files, "-k", "slow and 2", ".") == ["eval_slow[2]"]
    assert in_session(names, files, "eval_it.py::eval_slow[2]") == ["eval_slow[2]"]


def test_the_path_is_below_the_root_with_forward_slashes(in_session: InSession) -> None:
    files = {"pytest.ini": "[pytest]\n", "a/b/eval_it.py": HEADER + f"{ROWS}\ndef eval_it(x): ...\n"}
    assert in_session(lambda collected: collected.items[0].evaluation_path, files, "a/b") == "a/b/eval_it.py"


SHARING = (
    HEADER
    + f"""
@pytest.fixture(scope="session")
def wide(): ...

@pytest.fixture
def own(wide): ...

@pytest.fixture(scope="class")
def of_class(): ...

{ROWS}
def eval_nothing(x): ...

{ROWS}
async def eval_wide(x, wide): ...

{ROWS}
def eval_own(x, own): ...

{ROWS}
def eval_request(x, wide, request): ...

{ROWS}
def eval_of_class(x, of_class): ...

@pytest.mark.parametrize("n", [1])
{ROWS}
def eval_parameter(x, n): ...

@pytest.mark.usefixtures("own")
{ROWS}
def eval_used(x): ...

{ROWS}
def eval_captured(x, capsys, caplog, monkeypatch): ...

class EvalA:
    {ROWS.strip()}
    def eval_method(self, x, of_class): ...
"""
)


def test_rows_share_a_call_only_if_they_have_no_fixtures_of_their_own(in_session: InSession) -> None:
    def body(collected: Collected) -> dict[str, bool]:
        return {item.evaluation_name: item.has_row_fixtures() for item in collected.items}

    assert in_session(body, {"eval_it.py": SHARING}) == {
        "eval_nothing": False,
        "eval_wide": False,
        "eval_own": True,
        "eval_request": True,
        "eval_of_class": True,
        "eval_parameter[1]": False,
        "eval_used": True,
        "eval_captured": True,
        "EvalA::eval_method": True,
    }


def test_shared_fixtures_and_exclusive_fixtures(in_session: InSession) -> None:
    def body(collected: Collected) -> dict[str, tuple[list[str], list[str]]]:
        return {
            item.evaluation_name: (item.wide_fixture_names(), item.exclusive_fixture_names())
            for item in collected.items
        }

    found = in_session(body, {"eval_it.py": SHARING})
    assert found["eval_own"] == (["wide"], [])
    assert found["eval_parameter[1]"] == (["n"], [])
    assert found["EvalA::eval_method"] == (["of_class"], [])
    assert found["eval_of_class"] == ([], [])
    assert found["eval_captured"][1] == ["capsys", "caplog", "monkeypatch"]


def test_an_autouse_fixture_of_a_row_counts_as_its_own(in_session: InSession) -> None:
    source = HEADER + f"@pytest.fixture(autouse=True)\ndef each(): ...\n\n{ROWS}\ndef eval_it(x): ...\n"
    assert in_session(lambda collected: collected.items[0].has_row_fixtures(), {"eval_it.py": source})


def test_async_functions_are_recognised(in_session: InSession) -> None:
    found = in_session(facts, {"eval_it.py": SHARING})
    assert found["eval_wide"].is_async
    assert not found["eval_own"].is_async


# Collection errors.


@pytest.mark.parametrize(
    ("files", "arguments", "message"),
    [
        ({"eval_it.py": "import nowhere"}, ["."], r"(?s)eval_it\.py cannot be collected.*No module named 'nowhere'"),
        ({"eval_it.py": "def eval_it(:"}, ["."], r"(?s)eval_it\.py cannot be collected.*SyntaxError"),
        ({"eval_it.py": "def eval_it(x): ..."}, ["."], "no evaluation in"),
        (
            {"eval_it.py": HEADER + f"{ROWS}\ndef eval_it(x): ...\n"},
            ["eval_it.py::eval_other"],
            "eval_other",
        ),
        (
            {"eval_it.py": HEADER + '@foreach("y", [(1,)])\ndef eval_it(x): ...\n'},
            ["."],
            r"no parameter for the column 'y'",
        ),
    ],
    ids=["import", "syntax", "none", "node", "column"],
)
def test_collection_errors_say_what_is_wrong(
    in_session: InSession, files: dict[str, str], arguments: list[str], message: str
) -> None:
    with pytest.raises(EvaluationFileError, match=message) as raised:
        in_session(names, files, *arguments)
    assert raised.value.remedy


def test_one_broken_file_among_good_ones_is_an_error(in_session: InSession) -> None:
    files = {"eval_a.py": HEADER + f"{ROWS}\ndef eval_it(x): ...\n", "eval_b.py": "1 / 0"}
    with pytest.raises(EvaluationFileError, match="ZeroDivisionError"):
        in_session(names, files)
