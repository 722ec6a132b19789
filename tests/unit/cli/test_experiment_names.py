"""Any text is a good name for an experiment, in every command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.store import Store
from tests.support.cli import CommandLine, fill

NAMES = {
    "quotes": 'it\'s "quoted" `here` $HOME $(id)',
    "slashes": "a/b\\c",
    "parent": "../../etc/passwd",
    "emoji": "größe 🧪 \u202e",
    "newline": "one\ntwo\ttab",
    "sql": "'; DROP TABLE experiment; --",
    "pattern": "%_[*?]",
    "long": "x" * 10_000,
    "format": "{0} %s [bold]",
    "option": "--help",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_every_command_takes_any_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOTEVAL_BROKER", raising=False)
    monkeypatch.chdir(tmp_path)
    doteval_ = CommandLine(capsys)
    fill(tmp_path / "results.db")
    storage = ("--storage", str(tmp_path / "results.db"))

    def run(command: str, *arguments: str, code: int = 0) -> str:
        ran = doteval_(command, *arguments[1:], *storage, "--", *arguments[:1])
        assert ran.code == code, ran.err
        assert "Traceback" not in ran.err
        return ran.out

    ran = doteval_("rename", *storage, "--", "alpha", name)
    assert ran.code == 0, ran.err
    assert [each["name"] for each in json.loads(doteval_("list", *storage, "--json").out)["experiments"]] == [name]
    assert doteval_("list", *storage).code == 0
    for command in ("show", "status", "usage"):
        assert json.loads(run(command, name, "--json"))["experiment"]["name"] == name
        run(command, name)
    run("show", name, "--full", "--errors")
    assert "Cancelled 1 evaluation" in run("cancel", name, "--reason", name)
    with Store.open(storage[1]) as store:
        evaluations = store.evaluations.of(store.experiments.find(name))
        assert [each.status for each in evaluations] == [EvaluationStatus.COMPLETED, EvaluationStatus.CANCELLED]
        assert evaluations[1].reason == name
    run("watch", name)
    # Its file does not exist; that is said, and nothing else goes wrong.
    run("retry", name, code=2)
    run("delete", name, "--yes")
    assert json.loads(doteval_("list", *storage, "--json").out)["experiments"] == []
    # Nothing was made from the name.
    assert {path.name.partition(".db")[0] for path in tmp_path.iterdir()} == {"results"}
