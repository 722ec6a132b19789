"""Reads what dotevals stores: a directory for each experiment, with a file of JSON lines for each evaluation.

The first line of a file says what the evaluation is, and each further line holds one result. Results are stored as they
end, so `item_id` tells the order of the rows. Releases before 0.27 nest the result in the line.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doteval.core import lenient_json
from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.provenance import GitState
from doteval.core.results import Outcome, RowError, RowStatus, Score
from doteval.core.states import EvaluationEnd
from doteval.importing.logs import ImportedRow, Log, LogError, Remarks, mapping, unreadable

_READ = frozenset(
    (
        *("item_id", "prompt", "scores", "model_response", "dataset_row", "error", "timestamp", "result"),
        *("dataset_name", "dataset_class"),
    )
)
_ALL_NONE = "None"


def is_head(line: Any) -> bool:
    """Return whether the first line of a file says that it is an evaluation of dotevals."""
    return isinstance(line, dict) and "evaluation_name" in line and "status" in line


def open_evaluation(path: Path, head: Mapping[str, Any]) -> Log:
    """Open the evaluation in a file, whose first line was read.

    Raises LogError: the file cannot be read.
    """
    # By item: the number of its last line, since a row that ran again has a line more.
    last: dict[int, int] = {}
    for number, line in _lines(path):
        last[_item(path, number, line)] = number
    if not last:
        raise LogError(f"{path} holds no results", remedy="Run the evaluation in dotevals first.")
    commit = mapping(head.get("metadata")).get("git_commit")
    return Log(
        path=path,
        tool="dotevals",
        experiment=path.parent.name,
        file="dotevals",
        name=_name(str(head["evaluation_name"])),
        rows=functools.partial(_rows, path, last),
        row_count=len(last),
        ending=_ending(str(head.get("status"))),
        began_at=_moment(head.get("started_at")),
        ended_at=_moment(head.get("completed_at")),
        git=GitState(commit) if isinstance(commit, str) and commit else None,
    )


def _name(written: str) -> str:
    """The name without parameters that are all None, which dotevals adds for the columns.

    >>> _name("eval_x[None-None]"), _name("eval_x[a]")
    ('eval_x', 'eval_x[a]')
    """
    name, _, parameters = written.partition("[")
    return name if set(parameters.removesuffix("]").split("-")) == {_ALL_NONE} else written


def _ending(status: str) -> Ending | None:
    if status == "completed":
        return None
    if status == "failed":
        return Ending(EvaluationStatus.FAILED, EvaluationEnd.ERROR, "it failed in dotevals")
    return Ending(
        EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, f"it had not ended when it was imported: {status}"
    )


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The results of a file, with the numbers of their lines."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if number > 1 and text.strip():
                    yield number, mapping(lenient_json.loads(text))
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise LogError(
            f"{path}, line {number}: not JSON", remedy="Remove the line, whose result is then missing."
        ) from error


def _item(path: Path, number: int, line: Mapping[str, Any]) -> int:
    item = line.get("item_id")
    if not isinstance(item, int):
        raise LogError(f"{path}, line {number}: it has no item_id", remedy="Remove the line, or correct it.")
    return item


def _rows(path: Path, last: Mapping[int, int], remarks: Remarks) -> Iterator[ImportedRow]:
    places = {item: place for place, item in enumerate(sorted(last))}
    for number, line in _lines(path):
        item = _item(path, number, line)
        if last.get(item) != number:
            remarks.note("earlier results of rows that ran again left out")
            continue
        for name, value in line.items():
            if name not in _READ and value not in (None, [], {}, ""):
                remarks.note(f"{name} of results left out")
        values = line.get("dataset_row")
        row = values if isinstance(values, dict) else {"item_id": item}
        yield ImportedRow(None, row, {0: _outcome(line)}, places[item])


def _outcome(line: Mapping[str, Any]) -> Outcome:
    result = line["result"] if isinstance(line.get("result"), dict) else line
    error = line.get("error") or result.get("error")
    return Outcome(
        status=RowStatus.FAILED if error else RowStatus.DONE,
        started_at=_number(line.get("timestamp")) or 0.0,
        # dotevals does not measure it.
        seconds=0.0,
        scores=tuple(_score(each) for each in result.get("scores") or () if isinstance(each, dict)),
        prompt=result.get("prompt"),
        model_response=result.get("model_response"),
        error=_error(str(error)) if error else None,
    )


def _score(stored: Mapping[str, Any]) -> Score:
    metrics = [str(each) for each in stored.get("metrics") or ()]
    return Score(str(stored.get("name")), stored.get("value"), metrics, dict(mapping(stored.get("metadata"))))


def _error(text: str) -> RowError:
    kind, colon, message = text.partition(": ")
    if colon and kind.replace(".", "").isidentifier():
        return RowError(kind, message)
    return RowError("Error", text)


def _moment(written: Any) -> datetime | None:
    seconds = _number(written)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
