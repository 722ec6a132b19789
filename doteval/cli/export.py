"""`doteval export`: the results of an experiment as a file that other tools read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from doteval.cli.options import EXPERIMENT_NAME, evaluation_option, existing_store, json_option, storage_option
from doteval.cli.streams import say_aside

if TYPE_CHECKING:
    from doteval.core.experiments import Evaluation
    from doteval.core.filters import Filter
    from doteval.store import Store

STDOUT = Path("-")


@click.command("export")
@click.argument("name", type=EXPERIMENT_NAME)
@click.argument("file", type=click.Path(path_type=Path))
@evaluation_option
@click.option("--where", metavar="FILTER", help="Only results that match, as in doteval show --where.")
@click.option("--columns", metavar="LIST", help="Only these columns, in this order, separated by commas.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["csv", "jsonl", "parquet", "arrow"]),
    help="The format, if the name of the file does not end with it.  [default for stdout: jsonl]",
)
@click.option("--calls", is_flag=True, help="The calls to models instead of the results, as JSON lines.")
@storage_option
@json_option
def command(
    name: str,
    file: Path,
    evaluation: str | None,
    where: str | None,
    columns: str | None,
    format_name: str | None,
    calls: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Write the results of the experiment NAME to FILE, as csv, jsonl, parquet or arrow; - is stdout.

    The table has one line a result: the row's values as row.COLUMN, the scores as score.NAME, prompt, response, error,
    usage and time. JSON lines without --columns hold the whole record each, with metadata and traceback.

    With --calls it has one line a call of the call journal: request, reply, model, tokens and time, and the row.

    \b
    doteval export nightly nightly.parquet
    doteval export nightly wrong.csv --where "score.exact_match = 0"
    doteval export nightly - --columns key,score.exact_match,response | head -3
    doteval export nightly calls.jsonl --calls
    """
    from doteval.analysis.export import complete_file, format_of

    if as_json and file == STDOUT:
        raise click.UsageError("--json writes to standard output, as - does. Name a file.")
    chosen_format = format_of(file, format_name or ("jsonl" if file == STDOUT else None))
    if calls and (where is not None or columns is not None or chosen_format != "jsonl"):
        raise click.UsageError(
            "--calls writes JSON lines of all calls: name a .jsonl file, without --where and --columns."
        )
    wanted = None if columns is None else [column.strip() for column in columns.split(",")]
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment, evaluation)
        matched = None if where is None else store.selections.filter(evaluations, where)

        def write(opened: IO[bytes]) -> int:
            if calls:
                return _write_calls(opened, store, evaluations)
            return _write(opened, chosen_format, store, evaluations, matched, wanted)

        if file == STDOUT:
            if chosen_format in ("parquet", "arrow") and sys.stdout.isatty():
                raise click.UsageError(f"{chosen_format} is not text: name a file, or a pipe after it.")
            write(sys.stdout.buffer)
            return
        with complete_file(file) as opened:
            count = write(opened)
    what = "call" if calls else "result"
    pending = None if where is not None or calls else sum(each.counts.pending for each in evaluations)
    if as_json:
        from doteval.cli import documents

        written = {"file": str(file), "format": chosen_format, f"{what}s": count, "pending": pending}
        documents.write({"experiment": documents.experiment(experiment), "storage": store.url, **written})
        return
    from doteval.core.wording import counted

    say_aside(f"Wrote {counted(count, what)} to {file}")
    if pending:
        say_aside(f"{counted(pending, 'row')} without a result: doteval status {shlex.quote(name)}")


def _write(
    file: IO[bytes],
    chosen: str,
    store: Store,
    evaluations: Sequence[Evaluation],
    where: Filter | None,
    columns: Sequence[str] | None,
) -> int:
    from doteval.analysis.export import FORMATS, write_documents

    if chosen == "jsonl" and columns is None:
        return write_documents(file, _documents(store, evaluations, where))
    return FORMATS[chosen](file, store.results.flat(evaluations, where).table(columns))


def _documents(store: Store, evaluations: Sequence[Evaluation], where: Filter | None) -> Iterator[Mapping[str, Any]]:
    from doteval.analysis.export import to_document

    for evaluation in evaluations:
        for record in store.selections.records(evaluation.id, where):
            yield to_document(evaluation.experiment.name, evaluation.spec.nodeid, record)


def _write_calls(file: IO[bytes], store: Store, evaluations: Sequence[Evaluation]) -> int:
    from doteval.analysis.export import write_documents
    from doteval.cli.calls import call_document

    return write_documents(
        file,
        (
            {
                "experiment": evaluation.experiment.name,
                "evaluation": evaluation.spec.nodeid,
                "index": index,
                **call_document(call),
            }
            for evaluation in evaluations
            for index, call in store.calls.stream(evaluation.id)
        ),
    )
