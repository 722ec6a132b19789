"""Test data for a store, and work that several threads or processes do on it at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from doteval.core.experiments import Counts, Evaluation, EvaluationSpec
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus, Score, Usage
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store import CopyProgress, GroupWriter, HeldRange, NewResult, Store, WorkerInfo
from doteval.store.tables import RESULT
from tests.support.commands import Commands

SPEC = EvaluationSpec("evals/eval_qa.py", "eval_qa", ("text", "expected"), {"evals/eval_qa.py": "1"})


def rows(count: int, *, first: int = 0, version: str = "a") -> list[Row]:
    return [
        Row(index, f"{version}{index}", {"text": f"question {index}", "expected": index})
        for index in range(first, first + count)
    ]


def begin(store: Store, count: int = 0, *, name: str = "an experiment", epochs: int = 1) -> Evaluation:
    """An evaluation of `count` rows."""
    evaluation = store.evaluations.begin(store.experiments.begin(name), SPEC, epochs=epochs)
    store.rows.add(evaluation.id, rows(count))
    if count:
        store.rows.set_total(evaluation.id, count, complete=True, fingerprint="f")
    return evaluation


def done(value: Any = True, *, usage: tuple[Usage, ...] = (), **more: Any) -> Outcome:
    return Outcome(
        RowStatus.DONE, 1_000_000.0, 0.25, (Score("exact_match", value, ("accuracy",)),), usage=usage, **more
    )


def failed(message: str = "no answer", *, usage: tuple[Usage, ...] = ()) -> Outcome:
    error = RowError("ValueError", message, ErrorClass.EVALUATION, "Traceback ...")
    return Outcome(RowStatus.FAILED, 1_000_000.0, 0.5, error=error, usage=usage)


def skipped() -> Outcome:
    return Outcome(RowStatus.SKIPPED, 1_000_000.0, 0.0, error=RowError("Skipped", "not today"))


def results(evaluation: Evaluation, of: Iterable[Row], outcome: Outcome | None = None) -> list[NewResult]:
    return [NewResult(evaluation.id, row, outcome or done()) for row in of]


def sample(row: Row, number: int) -> Row:
    return Row(row.index, row.key, row.values, number)


def counted(store: Store, evaluation: Evaluation) -> Counts:
    """The counts as a scan of the results finds them, which the counters must agree with."""
    query = (
        select(RESULT.c.status, func.count().label("results"))
        .where(RESULT.c.evaluation_id == evaluation.id, RESULT.c.retry.is_(False))
        .group_by(RESULT.c.status)
    )
    with store._database.read() as connection:
        found = {line.status: line.results for line in connection.execute(query)}
    total = store.evaluations.counts(evaluation.id).total
    return Counts(total, **{status: found.get(status, 0) for status in ("done", "failed", "skipped")})


def in_threads(work: Callable[[int], Any], count: int = 8) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def copy_and_die(source: str, target: str, table: str, checking: bool) -> None:
    """Copy a store, and kill this process when so many lines of a table have been copied, or read back."""

    def die(progress: CopyProgress) -> None:
        if (progress.table, progress.checking) == (table, checking) and progress.done:
            os.kill(os.getpid(), signal.SIGKILL)

    with Store.open(source) as store:
        store.copy_into(target, die)


def in_processes(commands: Commands, work: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
    """Call a function of this module once for each list of arguments, each in a process of its own, all at once.

    Arguments and what comes back are JSON. Not with ProcessPoolExecutor, which may never end.
    """
    with contextlib.ExitStack() as stack:
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in arguments]
        processes = [
            commands.start(
                "tests.support.store_workload",
                [work.__name__, json.dumps(given)],
                directory=Path(__file__).parents[2],
                environment=os.environ,
                stdout=output,
                stderr=sys.__stderr__,
            )
            for given, output in zip(arguments, outputs, strict=True)
        ]
        try:
            codes = [process.wait(120) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert codes == [0] * len(processes)
        for output in outputs:
            output.seek(0)
        return [json.load(output) for output in outputs]


def open_and_begin(url: str) -> str:
    """Open a store that may not exist yet, and begin the same evaluation as everybody else."""
    with Store.open(url) as store:
        evaluation = begin(store)
        return f"{evaluation.experiment.id} {evaluation.id}"


def write_everything(url: str, uid: str, count: int, group: int, fails: bool) -> int:
    """Write a result for each row, in groups; returns how many were kept."""
    with Store.open(url) as store:
        evaluation = store.evaluations.by_uid(uid)
        outcome = failed() if fails else done(usage=(Usage("m", requests=1),))
        new = results(evaluation, rows(count), outcome)
        return sum(store.results.write(new[at : at + group], None) for at in range(0, count, group))


def work_as_clients(url: str, uid: str, clients: int, first: int, share: int) -> int:
    """Do what so many worker processes do to a store, each with a store of its own; returns the results stored.

    first: the number of the first one
    share: rows of each
    """

    def work(number: int) -> int:
        heard: list[BaseException | None] = []
        with Store.open(url) as store:
            info = WorkerInfo(service=f"service {number}", hostname="host", pid=number, queues=("q",), concurrency=1)
            worker = store.workers.begin(info)
            evaluation = store.evaluations.by_uid(uid)
            begins, ends = number * share, (number + 1) * share - 1
            store.workers.beat(worker, state=WorkerPhase.READY, holding=[HeldRange(uid, begins, ends)])
            with contextlib.closing(GroupWriter(store, worker, group=2)) as writer:
                pending = store.rows.pending(evaluation.id, begins, ends)
                for result in results(evaluation, pending, done(usage=(Usage("m", requests=1),))):
                    writer.put(result, heard.append)
                    store.evaluations.running()
            store.workers.end(worker, WorkerEnd.LEFT, reason="left")
        return heard.count(None)

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(work, range(first, first + clients)))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
