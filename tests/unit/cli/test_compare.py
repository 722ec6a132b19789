"""`doteval compare`: what it prints, its JSON, and its exit codes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.core.package_prices import PACKAGE, package_version
from doteval.core.provenance import Provenance
from doteval.store import Store
from tests.support.cli import CommandLine, line_with
from tests.support.comparisons import FAILED, PENDING, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")

N = 400


@pytest.fixture
def compared(tmp_path: Path) -> str:
    """A store with "base", "worse", a "cut" one of which a row failed and one is pending, and one with parameters."""
    source = random.Random(1)
    base = [source.random() < 0.6 for _ in range(N)]
    judged = [source.randint(1, 5) for _ in range(N)]
    worse = [right and row % 12 > 0 for row, right in enumerate(base)]
    cut = [FAILED, PENDING, *base[2:]]
    metrics = {"judge": ("mean",)}
    with Store.open(str(tmp_path / "results.db")) as store:
        add_experiment(store, "base", {"exact_match": base, "judge": judged}, metrics=metrics)
        add_experiment(
            store, "worse", {"exact_match": worse, "judge": judged}, metrics=metrics, model="m\x1b[31m", code="2"
        )
        add_experiment(store, "cut", {"exact_match": cut, "judge": judged}, status=EvaluationStatus.CANCELLED)
        for name, values in (("a", base), ("b", worse)):
            add_experiment(store, "params", {"exact_match": values}, name=f"eval_x[{name}]")
        return store.url


def test_compare(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "base", "worse", "--storage", compared)
    assert ran.code == 0
    assert line_with(ran.out, "base → worse").endswith("evals/eval_qa.py::eval_qa")
    assert "WARNING: the code differs: evals/eval_qa.py" in ran.out
    assert "WARNING: the models differ: gpt-small | m\N{REPLACEMENT CHARACTER}[31m" in ran.out
    assert "400 rows are in both" in ran.out
    assert line_with(ran.out, "exact_match").startswith("WORSE  exact_match accuracy")
    assert line_with(ran.out, "judge").startswith("NO DIFFERENCE SEEN  judge mean")
    assert "points would be seen with 80% power" in ran.out
    assert "$20.00" in line_with(ran.out, "cost")
    assert ran.out.splitlines()[-1] == "Verdict: WORSE"


def test_it_says_where_the_prices_come_from(doteval_: CommandLine, compared: str) -> None:
    """One line where both experiments ran with the same data, else one for each."""
    assert PACKAGE not in doteval_("compare", "base", "worse", "--storage", compared).out
    newest = package_version()
    shown: list[list[str]] = []
    for name, version in (("base", newest), ("worse", newest), ("worse", "0.0.1")):
        with Store.open(compared) as store:
            command = Provenance(("doteval", "submit"), versions={PACKAGE: version})
            store.provenance.add(store.experiments.find(name), command)
        out = doteval_("compare", "base", "worse", "--storage", compared).out
        shown.append([line for line in out.splitlines() if "by your own price table" in line])
    assert [len(lines) for lines in shown] == [1, 1, 2]
    assert [line.partition(":")[0] for lines in shown for line in lines] == ["base", "Cost", "base", "worse"]
    found = json.loads(doteval_("compare", "base", "worse", "--storage", compared, "--json").out)
    spending = found["evaluations"][0]["spending"]
    assert spending["baseline"]["prices"]["versions"] == [newest]
    assert spending["other"]["prices"] == {"package": PACKAGE, "versions": ["0.0.1", newest], "checked": None}


def test_rows_without_a_value_are_counted_where_rows_have_one(doteval_: CommandLine, compared: str) -> None:
    pairs = [("a" if row % 3 else "b", "a") for row in range(20)]
    with Store.open(compared) as store:
        for name, numbers in (("first", [1.0] * 20), ("second", [2.0] * 18 + [float("nan"), 2.0])):
            scores, metrics = {"judge": numbers, "label": pairs}, {"judge": ("mean",), "label": ("f1",)}
            add_experiment(store, name, scores, metrics=metrics)
    lines = doteval_("compare", "first", "second", "--storage", compared).out.splitlines()
    assert "  19 rows better, 0 worse, 0 equal, 1 without a value on both sides" in lines
    assert [line for line in lines if " equal" in line][1:] == []


def test_no_line_is_wider_than_a_terminal(
    doteval_: CommandLine, compared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["base", "worse", "--flips", "2"], ["base", "cut"], ["base", "worse", "params", "--matrix"]):
        ran = doteval_("compare", *arguments, "--storage", compared)
        assert [line for line in ran.out.splitlines() if len(line) > 80] == []


def test_of_many_evaluations_the_worst_are_printed(doteval_: CommandLine, tmp_path: Path) -> None:
    with Store.open(str(tmp_path / "results.db")) as store:
        for experiment in ("base", "new"):
            for number in range(25):
                worse = experiment == "new" and number in (7, 23)
                add_experiment(store, experiment, {"right": [not worse] * 20}, name=f"eval_x[{number}]")
            add_experiment(store, experiment, {"right": [True] * 20}, name=f"eval_{experiment}")
        url = store.url
    ran = doteval_("compare", "base", "new", "--limit", "3", "--fail-if-worse", "--storage", url)
    lines = ran.out.splitlines()
    assert [line.split("::")[1] for line in lines if line.startswith("base → new")] == [
        "eval_x[7]",
        "eval_x[23]",
        "eval_x[0]",
    ]
    assert "and 22 more evaluations: 22 NO DIFFERENCE SEEN (--limit 0 prints all)" in lines
    assert "Only new has evals/eval_qa.py::eval_new: it is not compared" in lines
    assert ran.code == 1
    assert len(ran.err.splitlines()) == 3
    ran = doteval_("compare", "base", "new", "--limit", "0", "--storage", url)
    assert ran.out.count("base → new") == 25
    missing = doteval_("compare", "base::eval_x", "new::eval_new", "--storage", url)
    assert missing.err.splitlines()[0] == (
        "Error: no evaluations of the same name: "
        + ", ".join(f"eval_x[{number}]" for number in range(10))
        + " and 15 more | eval_new"
    )


def test_flips(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "base", "worse", "--score", "exact_match", "--flips", "2", "--storage", compared)
    lines = ran.out.splitlines()
    found = [number for number, line in enumerate(lines) if "1 → 0" in line]
    assert len(found) == 2
    row = lines[found[0]].split()[1]
    assert lines[found[0] + 1 : found[0] + 4] == [
        f"    prompt: Answer key{row}",
        f"    base: base says key{row}",
        f"    worse: worse says key{row}",
    ]
    assert int(row) % 12 == 0
    assert "judge" not in ran.out
    wrong = doteval_("compare", "base", "cut", "--matrix", "--score", "exact_mach", "--storage", compared)
    assert (wrong.code, wrong.out) == (2, "")
    assert "Did you mean 'exact_match'?" in wrong.err


def test_exit_codes(doteval_: CommandLine, compared: str) -> None:
    def code(*arguments: str) -> int:
        return doteval_("compare", *arguments, "--storage", compared).code

    assert code("base", "worse") == 0
    assert code("base", "worse", "--fail-if-worse") == 1
    assert code("worse", "base", "--fail-if-worse", "--strict") == 0
    # The whole interval is above a drop of 20 points.
    assert code("base", "worse", "--fail-if-worse", "--max-drop", "0.2") == 0
    assert code("base", "base", "--strict", "--score", "exact_match", "--max-drop", "0.5") == 0
    assert code("base", "base", "--fail-if-worse", "--score", "exact_match", "--max-drop", "0.001") == 0
    assert code("base", "base", "--strict", "--score", "exact_match", "--max-drop", "0.001") == 1
    assert code("base") == 2
    assert code("base", "nothing") == 2
    assert code("base", "params") == 2
    assert code("base", "worse", "--score", "nothing") == 2
    assert code("base", "worse", "--cluster", "nothing") == 2
    assert code("base", "worse", "--max-drop", "nan") == 2
    assert code("base", "--matrix", "--strict") == 2


def test_why_it_fails(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "base", "worse", "--fail-if-worse", "--storage", compared)
    (failure,) = ran.err.splitlines()
    assert failure.startswith("Failed: eval_qa exact_match.accuracy is WORSE (")
    assert "95% interval of the difference" in failure


def test_an_experiment_that_was_cut_short(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "base", "cut", "--fail-if-worse", "--storage", compared)
    assert ran.code == 1
    assert "cut: 1 row failed (row 0)" in ran.out
    assert "cut::eval_qa is cancelled, with 1 row pending" in ran.out
    assert ran.out.splitlines()[-1] == "Verdict: UNDECIDED"
    assert "Failed: cut::eval_qa is cancelled, with 1 row pending" in ran.err


def test_parameters_of_one_experiment(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "params::eval_x[a]", "params::eval_x[b]", "--storage", compared)
    assert "eval_x[a] → eval_x[b]" in ran.out
    assert line_with(ran.out, "exact_match").startswith("WORSE")


def test_matrix(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "params", "--matrix", "--storage", compared)
    title, _, first, second = (line.split() for line in ran.out.splitlines())
    assert title == ["eval_x", "exact_match.accuracy"]
    assert (first[0], second[0]) == ("[a]", "[b]")
    assert float(first[1]) > float(second[1])
    ran = doteval_("compare", "base", "cut", "--matrix", "--score", "exact_match", "--storage", compared)
    assert "judge" not in ran.out
    wrong = doteval_("compare", "base", "cut", "--matrix", "--score", "exact_mach", "--storage", compared)
    assert (wrong.code, wrong.out) == (2, "")
    assert "Did you mean 'exact_match'?" in wrong.err
    assert "cut eval_qa: cancelled, 399/400 rows, 1 failed" in ran.out
    document = json.loads(doteval_("compare", "params", "--matrix", "--json", "--storage", compared).out)
    assert [(each["parameters"], each["score"], each["n"]) for each in document["figures"]] == [
        ("a", "exact_match", N),
        ("b", "exact_match", N),
    ]


def test_json(doteval_: CommandLine, compared: str) -> None:
    ran = doteval_("compare", "base", "worse", "--json", "--flips", "1", "--strict", "--storage", compared)
    assert ran.code == 1
    document = json.loads(ran.out)
    assert (document["verdict"], document["max_drop"], document["storage"]) == ("WORSE", None, compared)
    (found,) = document["evaluations"]
    assert found["baseline"] == {"experiment": "base", "evaluation": "evals/eval_qa.py::eval_qa"}
    assert found["other"]["experiment"] == "worse"
    assert (found["rows_matched"], found["gaps"], found["unfinished"]) == (N, [], [])
    exact, judge = found["metrics"]
    assert (exact["verdict"], judge["verdict"]) == ("WORSE", "NO DIFFERENCE SEEN")
    assert exact["interval"][0] < exact["difference"] < exact["interval"][1] < 0
    assert (exact["test"], exact["interval_method"], exact["n"], exact["units"]) == (
        "mcnemar-exact",
        "bonett-price",
        N,
        N,
    )
    assert exact["adjusted_p_value"] == pytest.approx(2 * exact["p_value"])
    (flip,) = exact["flips"]
    assert (flip["baseline"], flip["value"]) == (1.0, 0.0)
    assert flip["baseline_record"]["model_response"].startswith("base says")
    assert flip["record"]["model_response"].startswith("worse says")
    assert found["spending"]["baseline"]["usage"]["cost"] == pytest.approx(20.0)


def test_help_has_an_example(doteval_: CommandLine) -> None:
    assert "doteval compare base new --max-drop 0.01 --fail-if-worse --strict" in doteval_("compare", "--help").out
