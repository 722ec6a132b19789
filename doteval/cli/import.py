"""`doteval import`: logs of other tools, and tables of scores, as experiments."""  # noqa: N999 (the command's name)

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from doteval.cli.options import json_option, storage_option
from doteval.cli.streams import say, say_aside
from doteval.core.wording import counted

if TYPE_CHECKING:
    from doteval.store import Store
    from doteval.submission.import_logs import ImportedFile


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE|DIRECTORY...")
@click.option("--name", metavar="NAME", help="Import everything into this experiment.  [default: one for each log]")
@click.option("--score", "scores", multiple=True, metavar="COLUMN", help="A table's column with a score; repeatable.")
@click.option(
    "--key", metavar="COLUMN", help="A table's column that names the row, to pair rows by.  [default: all its values]"
)
@click.option("--prompt", metavar="COLUMN", help="A table's column with the prompt.")
@click.option("--response", metavar="COLUMN", help="A table's column with the model's response.")
@click.option("--error", metavar="COLUMN", help="A table's column with the error of a failed row.")
@click.option("--dry-run", is_flag=True, help="Read everything, say what would be imported, and store nothing.")
@storage_option
@json_option
def command(
    paths: tuple[Path, ...],
    name: str | None,
    scores: tuple[str, ...],
    key: str | None,
    prompt: str | None,
    response: str | None,
    error: str | None,
    dry_run: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Make experiments of inspect-ai's logs, of dotevals' JSON files and of tables with scores.

    Logs are .eval and .json files of inspect-ai, and the directories of dotevals. A table is a CSV, JSON lines, JSON
    or Parquet file; say which columns hold scores. Rows cannot be run again here; everything that reads works.

    \b
    doteval import logs/ --dry-run
    doteval import logs/2026-11-30_gsm8k.eval --name before
    doteval import results.jsonl --key id --score correct
    doteval compare before now --key input=question
    """
    from doteval.importing import TableColumns
    from doteval.submission.import_logs import ImportOptions, documents_of, import_logs

    columns = TableColumns(scores, key, prompt, response, error)
    if columns.named and not scores:
        raise click.UsageError("--key, --prompt, --response and --error are for tables: name a score with --score.")
    if name is not None and not name.strip():
        raise click.BadParameter("it is empty", param_hint="--name")
    files: list[ImportedFile] = []
    store = _store(storage, dry_run)
    try:
        for file in import_logs(store, paths, ImportOptions(name, columns, dry_run)):
            files.append(file)
            if not as_json:
                _say(file)
    finally:
        if store is not None:
            store.close()
    if not as_json:
        _say_skipped(files)
    else:
        from doteval.cli import documents

        documents.write({"storage": None if store is None else store.url, "files": documents_of(files)})
    if any(each.is_fault for each in files):
        click.get_current_context().exit(2)


def _store(storage: str | None, dry_run: bool) -> Store | None:
    from doteval.errors import NotFoundError
    from doteval.settings import load_settings
    from doteval.store import Store

    try:
        return Store.open(load_settings(storage=storage).storage, create=not dry_run)
    except NotFoundError:
        if dry_run:
            return None
        raise


def _say_skipped(files: list[ImportedFile]) -> None:
    """Say of which files in directories nothing was said."""
    from doteval.submission.import_logs import ImportStatus

    for status, what in (
        (ImportStatus.EXISTS, ("log was imported before", "logs were imported before")),
        (
            ImportStatus.NO_LOG,
            ("other file is no log that doteval knows", "other files are no logs that doteval knows"),
        ),
    ):
        found = [each for each in files if each.status is status and not each.named]
        if found:
            more = "" if len(found) == 1 else " and others"
            say_aside(f"{counted(len(found), *what)}: {found[0].path}{more}")


def _say(file: ImportedFile) -> None:
    from doteval.submission.import_logs import ImportStatus

    if file.status in (ImportStatus.NO_LOG, ImportStatus.EXISTS) and not file.named:
        return
    if file.message is not None:
        say_aside(file.message, label="Error:")
        if file.remedy:
            say_aside(file.remedy)
        return
    what = f"{counted(file.rows, 'row')}, {counted(file.results, 'result')}"
    if file.failed:
        what += f", {file.failed:,} failed"
    if file.missing:
        what += f", {file.missing:,} missing"
    verb = "would be imported" if file.status is ImportStatus.WOULD_BE_IMPORTED else "imported"
    ended = "" if file.ended is None else f", {file.ended.value}"
    say(f"{file.path}: {verb} as {file.experiment}::{file.evaluation} ({what}{ended})")
    for note in file.notes:
        say(f"  note: {note}")
    if file.remarks:
        say(f"  also: {', '.join(f'{each} ({count:,})' for each, count in file.remarks.items())}")
