"""What commands write with `--json` has the keys and the types of docs/reference/json.md."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from docs.generate.commands import commands
from docs.generate.json_documents import COMMANDS
from docs.generate.json_parts import PARTS
from doteval.core.call_journal import CallSource, FinishedCall
from doteval.core.provenance import GitState, Provenance
from doteval.core.row_labels import LabelJudgement
from doteval.store import GroupWriter, NewCall, Store
from doteval.store.row_labels import RowLabelWriter
from tests.support.cli import CommandLine, complete
from tests.support.comparisons import FAILED, add_experiment
from tests.support.foreign_logs import inspect_log, write_eval
from tests.support.json_shapes import undocumented

pytestmark = pytest.mark.usefixtures("without_settings")

# Each as the page calls it, and the same with the options that add keys. DIR is a directory of the test.
CALLS = [
    ("list", "list"),
    ("status NAME", "status alpha"),
    ("show NAME", "show alpha --errors --full"),
    ("show NAME", "show alpha --row 1"),
    ("show NAME", "show base"),
    ("show NAME with a filter, an order, columns or groups", "show alpha --failed"),
    ("show NAME with a filter, an order, columns or groups", "show base --columns index,score.exact_match --limit 2"),
    ("show NAME with a filter, an order, columns or groups", "show base --group-by row.topic"),
    ("compare A B", "compare base worse --flips 2"),
    ("compare --matrix", "compare base worse --matrix"),
    ("baseline show", "baseline show"),
    ("baseline set NAME", "baseline set base"),
    ("baseline show", "baseline show"),
    ("judge-check NAME", "judge-check worse --score exact_match"),
    ("recompute NAME", "recompute base"),
    ("recompute NAME", "recompute worse"),
    ("history SCORE", "history exact_match"),
    ("usage NAME", "usage alpha"),
    ("usage NAME", "usage alpha --by fixture"),
    ("usage NAME", "usage alpha --by model"),
    ("usage NAME", "usage alpha --by worker"),
    ("usage NAME", "usage alpha --by evaluation"),
    ("report NAME -o FILE", "report base -o DIR/report.md --format markdown"),
    ("query SQL", "query --file DIR/query.sql"),
    ("export NAME FILE", "export alpha DIR/results.jsonl"),
    ("export NAME FILE", "export alpha DIR/calls.jsonl --calls"),
    ("import FILE", "import DIR/log.eval"),
    ("import FILE", "import DIR/query.sql"),
    ("tag NAME", "tag base +night --note text"),
    ("prune", "prune --older-than 0s --dry-run"),
    ("prune --journals", "prune --journals --older-than 0s --dry-run"),
    ("datasets", "datasets"),
    ("db size", "db size"),
    ("db copy FROM TO", "db copy STORE DIR/copy.db"),
    ("baseline clear", "baseline clear"),
    ("docs", "docs"),
    ("docs PAGE", "docs cli#store-urls"),
]
# In tests/acceptance: test_doctor.py and test_estimate.py.
ELSEWHERE = {"doctor", "submit --estimate-only"}


def fill_more(path: str, directory: Path) -> None:
    """Two experiments to compare, labels of people, commands, a call, and files."""
    with Store.open(path) as store:
        begun = Provenance(("pytest",), GitState("a" * 40, "main"), "here", "me")
        right = [index % 3 > 0 for index in range(40)]
        for name, values in (("base", right), ("worse", [FAILED, *[False] * 19, *right[20:]])):
            evaluation = add_experiment(store, name, {"exact_match": values})
            store.provenance.add(evaluation.experiment, begun)
        (worse,) = store.evaluations.of(store.experiments.find("worse"))
        with contextlib.closing(RowLabelWriter(path)) as labels:
            for person, judgement in (("ann", LabelJudgement.RIGHT), ("bob", LabelJudgement.WRONG)):
                for index in range(1, 9):
                    labels.put(worse.id, index, 0, person=person, judgement=judgement, note="why")
        words, *_ = store.evaluations.of(store.experiments.find("alpha"))
        group_writer = GroupWriter(store, None)
        call = FinishedCall(b"d", 0, CallSource.LIVE, "m", 200, 1000.0, 0.5, "/chat", request=b"{}", reply=b"data")
        group_writer.put_calls([NewCall(words.id, 1, 0, 7, call)])
        group_writer.close()
    (directory / "query.sql").write_text("SELECT experiment, failed FROM evaluations")
    write_eval(directory / "log.eval", inspect_log())


@pytest.fixture
def run(doteval_: CommandLine, results: str, tmp_path: Path) -> Callable[[str], object]:
    fill_more(results, tmp_path)

    def run(line: str) -> object:
        words = [word.replace("DIR", str(tmp_path)).replace("STORE", results) for word in line.split()]
        if words[:2] == ["db", "copy"]:
            # A store in which something runs is not copied.
            complete(Path(results))
        stored = [] if words[0] in ("docs", "datasets") or words[1:2] == ["copy"] else ["--storage", results]
        ran = doteval_(*words, "--json", *stored)
        assert ran.out, ran.err
        return json.loads(ran.out)

    return run


def test_documents_are_as_the_page_says(run: Callable[[str], object]) -> None:
    wrong = {line: found for name, line in CALLS if (found := undocumented(run(line), name))}
    assert wrong == {}


def test_the_page_has_every_command_with_json() -> None:
    with_json = {
        name
        for name, command in commands().items()
        if any("--json" in param.opts for param in command.params) and name != "submit"
    }
    assert {name for name in with_json if not any(title.startswith(name) for title in COMMANDS)} == set()
    assert {name for name, _ in CALLS} | ELSEWHERE == set(COMMANDS)


def test_every_part_is_used() -> None:
    kinds = [kind for shape in (*COMMANDS.values(), *PARTS.values()) for kind, _ in shape.values()]
    named = {kind.removesuffix(" or null").strip("[]{}").removesuffix(" or null") for kind in kinds}
    assert PARTS.keys() - named == {"evaluation"}
    assert named - PARTS.keys() == {"any", "flag", "number", "text", "time"}


def test_differences_are_found() -> None:
    baseline = {"name": "x", "created_at": "2026-11-30T10:00:00", "since": 3}
    document = {"storage": None, "baseline": baseline, "more": 1}
    assert undocumented(document, "baseline show") == [
        "baseline show.more is not documented",
        "baseline show.storage is no text: None",
        "baseline show.baseline.created_at has no time zone",
        "baseline show.baseline.since is no time: 3",
    ]
