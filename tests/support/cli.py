"""Runs the command line in this process, reads what it prints, and fills a store for it."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from doteval.cli import main
from doteval.core.experiments import EvaluationSpec, EvaluationStatus
from doteval.core.histogram import Latency
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus, Score, Usage
from doteval.core.run_config import RunConfig
from doteval.store import NewResult, Store, WorkerInfo


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


class CommandLine:
    """Calls `doteval` in this process, with real exit codes and real streams."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str) -> Ran:
        self._capsys.readouterr()
        threshold = gc.get_threshold()
        # A command sees to it that little garbage is looked for, and at its end none: this process goes on.
        with pytest.raises(SystemExit) as exited, patch.object(gc, "freeze"):
            main(args)
        gc.set_threshold(*threshold)
        captured = self._capsys.readouterr()
        assert isinstance(exited.value.code, int)
        return Ran(exited.value.code, captured.out, captured.err)


def words(line: str) -> list[str]:
    return line.split()


def line_with(out: str, text: str) -> str:
    found = [line for line in out.splitlines() if text in line]
    assert found, f"no line with {text!r} in:\n{out}"
    return found[0]


def fill(path: Path) -> None:
    """An experiment "alpha": one evaluation completed with five rows, one running with two of four rows."""
    with Store.open(str(path)) as store:
        experiment = store.experiments.begin("alpha")
        worker = store.workers.begin(WorkerInfo("local", "here", 1, ("doteval",)))
        usage = (
            Usage(
                "gpt-small",
                requests=1,
                attempts=2,
                cache_hits=3,
                cache_misses=1,
                prompt_tokens=10,
                completion_tokens=3,
                cost=0.5,
                waited=2.0,
                latency=Latency.of(0.1),
            ),
        )
        spec = EvaluationSpec("evals/eval_words.py", "eval_words[gpt-small]", ("text",))
        words = store.evaluations.begin(experiment, spec)
        rows = [Row(index, f"key{index}", {"text": f"word {index}"}) for index in range(5)]
        store.rows.add(words.id, rows)
        store.rows.set_total(words.id, 5, complete=True, fingerprint=None)
        outcomes = [
            Outcome(
                RowStatus.DONE,
                1e9,
                0.5,
                (Score("exact_match", index < 2, ("accuracy",)), Score("label", "noun", ("nosuchmetric",))),
                prompt=f"Classify {index}",
                model_response="noun \x1b[31m",
                usage=usage,
            )
            for index in range(3)
        ]
        failure = RowError("ValueError", "no [bold]such[/bold] word", ErrorClass.EVALUATION, "Traceback: line 7")
        outcomes.append(Outcome(RowStatus.FAILED, 1e9, 0.1, error=failure))
        skip = RowError("Skipped", "not a word")
        outcomes.append(Outcome(RowStatus.SKIPPED, 1e9, 0.1, error=skip))
        results = [NewResult(words.id, row, outcome) for row, outcome in zip(rows, outcomes, strict=True)]
        store.results.write(results, worker)
        store.evaluations.set_status(words.id, EvaluationStatus.COMPLETED)
        running = store.evaluations.begin(experiment, _MORE)
        store.rows.add(running.id, rows[:4])
        store.rows.set_total(running.id, 4, complete=True, fingerprint=None)
        outcome = Outcome(RowStatus.DONE, 1e9, 0.5, (Score("mean_length", 2.5, ("mean",)),))
        store.results.write([NewResult(running.id, row, outcome) for row in rows[:2]], worker)
        load = store.loads.begin(worker, "lexicon", "", 1.5, evaluation_id=words.id)
        store.loads.end(load, {"calls": 12_345, "cache": {"hits": 3}}, 0.1)
        store.workers.end(worker, reason="done")


# Workers may come at any time and run its rows.
_MORE = EvaluationSpec("evals/eval_more.py", "eval_more", ("text",), config=RunConfig(submitted=True))


def complete(path: Path) -> None:
    """Complete the evaluation that is running."""
    with Store.open(str(path)) as store:
        for evaluation in store.evaluations.of(store.experiments.find("alpha")):
            store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
