"""Reads logs of inspect-ai: `.eval`, a zip file with one JSON file a sample, and `.json`.

Both have a head with the task, the model and the results. A `.eval` that inspect-ai is still writing, or was killed
while writing, has a beginning (`_journal/start.json`) instead of a head. Its members are compressed with Zstandard, or,
in logs from before 2026, with deflate. A sample at a time is in memory. A `.json` is read whole.
"""

from __future__ import annotations

import functools
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doteval.core import lenient_json
from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.provenance import GitState
from doteval.core.reducer_names import ReducerName
from doteval.core.states import EvaluationEnd
from doteval.errors import UsageError
from doteval.importing.inspect_samples import outcome_of, row_values, seconds_of
from doteval.importing.inspect_scores import ScorerMetrics, figures_of
from doteval.importing.logs import ImportedRow, Log, LogError, Remarks, mapping, unreadable

if TYPE_CHECKING or sys.version_info >= (3, 14):
    import zipfile
else:
    # The zipfile of Python 3.14, which reads members that are compressed with Zstandard.
    from backports.zstd import zipfile

# The newest version of the format that is known here.
NEWEST_VERSION = 2

_SAMPLE = re.compile(r"samples/(.*)_epoch_(\d+)\.json", re.DOTALL)
_HEADS = ("header.json", "_journal/start.json")
_DOWNLOAD_AGAIN = "The file is cut off or damaged: copy it again, or repair it with `inspect log recover`."

# Reads the sample of an id, as the log's names have it, and an epoch.
_Samples = Mapping[str, Mapping[int, Any]]


def open_eval(path: Path) -> Log:
    """Open the log in a `.eval` file.

    Raises LogError: it cannot be read, or its format is newer than known.
    """
    with _archive(path) as archive:
        names = set(archive.namelist())
        head = next((name for name in _HEADS if name in names), None)
        if head is None:
            raise LogError(f"{path} is not a log of inspect-ai: it has no header.json", remedy=_DOWNLOAD_AGAIN)
        header = _object(path, head, archive.read(head))
        samples: dict[str, dict[int, str]] = {}
        for name in archive.namelist():
            if found := _SAMPLE.fullmatch(name):
                samples.setdefault(found[1], {})[int(found[2])] = name
    return _log(path, header, samples, functools.partial(_archived_rows, path, header, samples))


def open_json(path: Path, document: Mapping[str, Any]) -> Log:
    """Take the log from a `.json` file that was read.

    Raises LogError: it is not complete, or its format is newer than known.
    """
    samples: dict[str, dict[int, Any]] = {}
    for sample in document.get("samples") or ():
        if isinstance(sample, dict):
            samples.setdefault(str(sample.get("id")), {})[_epoch(sample)] = sample
    return _log(path, document, samples, functools.partial(_document_rows, document, samples))


def is_log(document: Any) -> bool:
    """Return whether a JSON document is a log of inspect-ai, by its fields."""
    return isinstance(document, dict) and isinstance(document.get("eval"), dict) and "task" in document["eval"]


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except zipfile.BadZipFile as error:
        raise LogError(f"{path} is not a whole zip file: {error}", remedy=_DOWNLOAD_AGAIN) from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise LogError(f"{path} cannot be unpacked: {error}", remedy=_DOWNLOAD_AGAIN) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:
        # The error of compression.zstd, a module that Python before 3.14 does not have.
        if type(error).__name__ != "ZstdError":
            raise
        raise LogError(f"{path} cannot be unpacked: {error}", remedy=_DOWNLOAD_AGAIN) from error


def _object(path: Path, member: str, text: bytes) -> dict[str, Any]:
    try:
        value = lenient_json.loads(text)
    except ValueError as error:
        raise LogError(f"{path}: {member} is not JSON", remedy=_DOWNLOAD_AGAIN) from error
    if not isinstance(value, dict):
        raise LogError(f"{path}: {member} is not a JSON object", remedy=_DOWNLOAD_AGAIN)
    return value


def _log(path: Path, header: Mapping[str, Any], samples: _Samples, rows: Any) -> Log:
    version = header.get("version")
    if not isinstance(version, int) or version > NEWEST_VERSION:
        raise LogError(
            f"{path} has version {version} of inspect-ai's format, and this doteval knows versions up to "
            f"{NEWEST_VERSION}",
            remedy="Use a newer doteval: pip install --upgrade doteval",
        )
    task, stats = mapping(header.get("eval")), mapping(header.get("stats"))
    if not isinstance(task.get("task"), str):
        raise LogError(f"{path} is not a log of inspect-ai: it names no task", remedy=_DOWNLOAD_AGAIN)
    if not samples:
        raise LogError(
            f"{path} holds no samples", remedy="inspect-ai wrote it with log_samples=False, or no sample has ended."
        )
    config, dataset = mapping(task.get("config")), mapping(task.get("dataset"))
    epochs = max(config.get("epochs") or 1, max(max(each) for each in samples.values()))
    reducers = [str(each) for each in config.get("epochs_reducer") or ()]
    ids = dataset.get("sample_ids") or ()
    notes: list[str] = []
    reducer = _reducer(reducers, notes) if epochs > 1 else None
    packages = {str(name): str(version) for name, version in mapping(task.get("packages")).items()}
    return Log(
        path=path,
        tool=f"inspect-ai {packages.get('inspect_ai', '')}".strip(),
        experiment=path.stem,
        file=str(task.get("task_file") or "inspect-ai"),
        name=task["task"],
        rows=rows,
        model=None if task.get("model") in (None, "none/none") else str(task["model"]),
        row_count=max(len(ids), len(samples)),
        epochs=epochs,
        reducer=reducer,
        ending=_ending(header),
        began_at=_moment(stats.get("started_at")) or _moment(task.get("created")),
        ended_at=_moment(stats.get("completed_at")),
        git=_git(mapping(task.get("revision"))),
        versions=packages,
        tags=[str(tag) for tag in header.get("tags") or task.get("tags") or ()],
        note=_note(header, task, dataset),
        figures=figures_of(header, reducers[0] if reducers else None),
        notes=notes,
    )


def _reducer(reducers: list[str], notes: list[str]) -> str | None:
    """doteval's reducer for the first of inspect-ai's; None, which takes every sample as it is, if it has none."""
    name = reducers[0] if reducers else "mean"
    if len(reducers) > 1:
        notes.append(f"inspect-ai reduced the epochs by {', '.join(reducers)}; the figures here are those of {name}")
    try:
        return str(ReducerName.parse(name))
    except UsageError:
        notes.append(f"inspect-ai reduced the epochs by {name}, which doteval does not have: every sample counts")
        return None


def _ending(header: Mapping[str, Any]) -> Ending | None:
    status = header.get("status", "started")
    if status == "success":
        return None
    if status == "error":
        message = mapping(header.get("error")).get("message")
        reason = f"inspect-ai ended it with an error: {message}" if message else "inspect-ai ended it with an error"
        return Ending(EvaluationStatus.FAILED, EvaluationEnd.ERROR, reason)
    if status == "cancelled":
        return Ending(EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, "it was cancelled in inspect-ai")
    return Ending(
        EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, f"it had not ended when it was imported: {status}"
    )


def _archived_rows(
    path: Path, header: Mapping[str, Any], samples: Mapping[str, Mapping[int, str]], remarks: Remarks
) -> Iterator[ImportedRow]:
    metrics = ScorerMetrics.of_header(header)
    with _archive(path) as archive:
        for name in _in_order(header, samples):
            yield _row(
                {epoch: _object(path, member, archive.read(member)) for epoch, member in samples[name].items()},
                metrics,
                remarks,
            )


def _document_rows(
    document: Mapping[str, Any], samples: Mapping[str, Mapping[int, Mapping[str, Any]]], remarks: Remarks
) -> Iterator[ImportedRow]:
    metrics = ScorerMetrics.of_header(document)
    for name in _in_order(document, samples):
        yield _row(samples[name], metrics, remarks)


def _in_order(header: Mapping[str, Any], samples: _Samples) -> Iterator[str]:
    """The ids of samples as texts, in the order of the dataset; the others after them."""
    dataset = mapping(mapping(header.get("eval")).get("dataset"))
    listed = dict.fromkeys(str(each) for each in dataset.get("sample_ids") or ())
    yield from (name for name in listed if name in samples)
    yield from (name for name in samples if name not in listed)


def _row(by_epoch: Mapping[int, Mapping[str, Any]], metrics: ScorerMetrics, remarks: Remarks) -> ImportedRow:
    first = by_epoch[min(by_epoch)]
    # Epochs begin with 1, samples of doteval with 0.
    outcomes = {epoch - 1: outcome_of(by_epoch[epoch], metrics, remarks) for epoch in sorted(by_epoch)}
    return ImportedRow(str(first.get("id")), row_values(first), outcomes)


def _epoch(sample: Mapping[str, Any]) -> int:
    epoch = sample.get("epoch")
    return epoch if isinstance(epoch, int) and epoch > 0 else 1


def _note(header: Mapping[str, Any], task: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """What else the head says, in one line."""
    said: dict[str, Any] = {"model": task.get("model"), "dataset": dataset.get("name")}
    said |= mapping(task.get("task_args_passed")) or mapping(task.get("task_args"))
    said |= mapping(header.get("metadata")) or mapping(task.get("metadata"))
    return ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)


def _git(revision: Mapping[str, Any]) -> GitState | None:
    commit, dirty = revision.get("commit"), revision.get("dirty")
    return GitState(commit, None, dirty if isinstance(dirty, bool) else None) if isinstance(commit, str) else None


def _moment(written: Any) -> datetime | None:
    seconds = seconds_of(written)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
