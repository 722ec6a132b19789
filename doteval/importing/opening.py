"""Finds logs below a path, and opens them by what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from doteval.core import lenient_json
from doteval.datasets.file_dataset import format_suffix
from doteval.importing import dotevals_log, inspect_log
from doteval.importing.logs import Log, LogError, NoLogError, unreadable
from doteval.importing.score_tables import SUFFIXES, TableColumns, no_scores_named, open_table

_LINES = frozenset({".jsonl", ".ndjson"})
# Files that inspect-ai writes beside its logs.
_BESIDE_LOGS = frozenset({"logs.json", "eval-set.json", "listing.json"})


def find_logs(path: Path) -> Iterator[Path]:
    """Yield the files that a path names: itself, or all logs below it that inspect-ai or dotevals may have written.

    Raises LogError: there is no such file, or no log below the directory.
    """
    if not path.is_dir():
        if not path.exists():
            raise LogError(f"there is no file {path}", remedy="Name a log, or a directory with logs.")
        yield path
        return
    found = sorted(
        each
        for each in path.rglob("*")
        if each.suffix in (".eval", ".json", ".jsonl") and each.name not in _BESIDE_LOGS and each.is_file()
    )
    if not found:
        raise LogError(
            f"there are no logs below {path}",
            remedy="Logs are .eval and .json files of inspect-ai, .jsonl of dotevals.",
        )
    yield from found


def open_log(path: Path, columns: TableColumns) -> Log:
    """Open the log in a file, by its suffix and by what it holds.

    columns: what the columns of a table mean.

    Raises LogError: it cannot be read, or nothing here reads it.
    """
    suffix = format_suffix(path)
    if suffix == ".eval":
        return inspect_log.open_eval(path)
    if not columns.scores:
        if path.suffix == ".json":
            return _open_document(path)
        if suffix in _LINES and dotevals_log.is_head(head := _first_line(path)):
            return dotevals_log.open_evaluation(path, head)
    if suffix not in SUFFIXES:
        raise NoLogError(
            f"{path} is no log that doteval knows",
            remedy=f"It reads .eval and .json of inspect-ai, .jsonl of dotevals, and tables: {', '.join(SUFFIXES)}.",
        )
    return open_table(path, columns)


def _open_document(path: Path) -> Log:
    try:
        document = lenient_json.loads(path.read_bytes())
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise LogError(f"{path} is not JSON", remedy="The file is cut off or damaged: copy it again.") from error
    if not inspect_log.is_log(document):
        raise no_scores_named(path)
    return inspect_log.open_json(path, document)


def _first_line(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            line = lenient_json.loads(file.readline())
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}
