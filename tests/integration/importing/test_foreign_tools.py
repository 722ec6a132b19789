"""Imports what inspect-ai and dotevals themselves write, and imports that are killed.

The tools are installed into environments of their own, as for benchmarks.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.environments import python_of
from doteval.cli import main
from doteval.core.experiments import EvaluationStatus
from doteval.importing.inspect_log import zipfile
from doteval.store import Store
from tests.support.foreign_logs import dotevals_lines, first_difference, inspect_log, write_eval
from tests.support.project import wait_until

PEERS = Path(__file__).parents[2] / "support" / "peers"


def peer(name: str) -> str:
    """The interpreter of a tool's environment."""
    try:
        return python_of(name, measured=False)
    except subprocess.CalledProcessError:
        pytest.skip(f"{name} cannot be installed here: no package index answers")


def imported(path: Path, storage: Path) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["import", str(path), "--storage", str(storage)])
    assert exited.value.code == 0


def read_eval(path: Path) -> dict[str, Any]:
    """The log in a `.eval` file, in the form of a `.json` file."""
    with zipfile.ZipFile(path) as archive:
        log: dict[str, Any] = json.loads(archive.read("header.json"))
        names = [name for name in archive.namelist() if name.startswith("samples/")]
        samples = [json.loads(archive.read(name)) for name in names]
    return log | {"samples": sorted(samples, key=lambda sample: (sample["epoch"], sample["id"]))}


def with_known_events(log: dict[str, Any]) -> dict[str, Any]:
    """A log with those events only that ours have, of the many that inspect-ai writes."""
    for sample in log["samples"]:
        sample["events"] = [each for each in sample["events"] if each["event"] in ("sample_init", "model")]
    return log


@pytest.mark.slow("test_import of the command line imports files of the same shape, which our own code writes")
def test_logs_that_inspect_ai_writes(tmp_path: Path) -> None:
    python, logs, storage = peer("inspect-ai"), tmp_path / "logs", tmp_path / "results.db"
    subprocess.run([python, PEERS / "inspect_logs.py", logs], cwd=tmp_path, check=True, timeout=300)
    (whole,), (ended,) = logs.glob("*.eval"), logs.glob("*.json")
    # What the fast tests read has the shape of what inspect-ai writes.
    assert first_difference(inspect_log(), with_known_events(read_eval(whole))) is None
    ours = inspect_log()
    # Without reducers and results, since an error has ended it.
    ours.pop("results")
    ours["eval"]["config"].pop("epochs_reducer")
    assert first_difference(ours, with_known_events(json.loads(ended.read_text()))) is None

    write_eval(tmp_path / "ours.eval", inspect_log())
    for path in (logs, tmp_path / "ours.eval"):
        imported(path, storage)
    with Store.open(str(storage)) as store:
        theirs, failed, mine = (
            store.evaluations.of(store.experiments.find(name))[0] for name in (whole.stem, ended.stem, "ours")
        )
        assert (theirs.status, failed.status) == (EvaluationStatus.COMPLETED, EvaluationStatus.FAILED)
        assert failed.reason == "inspect-ai ended it with an error: ValueError('no colour é')"
        assert theirs.rows_hash == mine.rows_hash
        assert store.summary(theirs).to_dict() == store.summary(mine).to_dict()
        # The figures are those of the log: a note would say otherwise.
        assert [note for note in theirs.dataset_notes if " in the log" in note] == []
        for one, other in zip(store.results.records(theirs.id), store.results.records(mine.id), strict=True):
            assert one.row.values == other.row.values
            assert one.outcome.scores == other.outcome.scores
            assert (one.outcome.prompt, one.outcome.model_response) == (
                other.outcome.prompt,
                other.outcome.model_response,
            )
            assert [usage.prompt_tokens for usage in one.outcome.usage] == [
                usage.prompt_tokens for usage in other.outcome.usage
            ]
            assert (one.error, one.outcome.status) == (other.error, other.outcome.status)


@pytest.mark.slow("test_import of the command line imports files of the same shape, which our own code writes")
@pytest.mark.parametrize("release", ["dotevals-0.26", "dotevals-0.28"])
def test_files_that_dotevals_writes(tmp_path: Path, release: str) -> None:
    python, storage = peer(release), tmp_path / "results.db"
    (tmp_path / "eval_stored.py").write_text((PEERS / "stored_by_dotevals.py").read_text())
    command = [python, "-m", "pytest", "-q", "eval_stored.py", "--experiment", "old", "--storage", "json://stored"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300, stdout=subprocess.DEVNULL)
    (path,) = (tmp_path / "stored" / "old").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert first_difference(dotevals_lines(nested=release == "dotevals-0.26"), lines) is None
    imported(tmp_path / "stored", storage)
    with Store.open(str(storage)) as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("old"))
        assert (evaluation.name, evaluation.status) == ("eval_stored", EvaluationStatus.COMPLETED)
        assert (evaluation.counts.done, evaluation.counts.failed) == (3, 1)
        assert store.summary(evaluation)["exact_match"]["accuracy"] == 0.5


@pytest.mark.slow("test_what_a_killed_import_left_is_replaced writes by hand what such an import leaves")
def test_an_import_that_is_killed_is_never_read_as_whole(tmp_path: Path) -> None:
    path, storage = tmp_path / "rows.jsonl", tmp_path / "results.db"
    # So many that the kill comes in the middle on a busy machine, too.
    rows = 60_000
    path.write_text("".join(f'{{"id": {n}, "right": true}}\n' for n in range(rows)))
    command = [sys.executable, "-m", "doteval", "import", str(path)]
    command += ["--key", "id", "--score", "right", "--storage", str(storage)]
    Store.open(str(storage)).close()
    with subprocess.Popen(command, cwd=tmp_path) as process, Store.open(str(storage)) as store:
        wait_until(lambda: any(line.counts.done for line in store.experiments.overviews()), seconds=120)
        process.send_signal(signal.SIGKILL)
        process.wait()
        (left,) = store.evaluations.of(store.experiments.find("rows"))
        assert left.status is EvaluationStatus.RUNNING
        assert 0 < left.counts.done < rows
        subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
        (whole,) = store.evaluations.of(store.experiments.find("rows"))
        assert (whole.status, whole.counts.done, whole.counts.total) == (EvaluationStatus.COMPLETED, rows, rows)
        assert whole.id != left.id
        assert store.rows.keys(left.id, 0, rows) == {}
