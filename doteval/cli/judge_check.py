"""`doteval judge-check`: how far a judge agrees with people's labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.options import EXPERIMENT_NAME, evaluation_option, existing_store, json_option, storage_option
from doteval.core.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.judge_check import JudgeCheck
    from doteval.cli.documents import Document
    from doteval.metrics.agreement import Agreement
    from doteval.submission.judged_rows import JudgedRows


@click.command("judge-check")
@click.argument("name", type=EXPERIMENT_NAME)
@click.argument("labels", required=False, type=click.Path(path_type=Path))
@click.option("--score", metavar="SCORE", help="The judge's score, if the evaluation has several.")
@evaluation_option
@click.option(
    "--key", metavar="COLUMN", help="The column that identifies rows, in LABELS and the dataset.  [default: key]"
)
@click.option("--label", metavar="COLUMN", help="The column of LABELS with labels.  [default: label]")
@click.option(
    "--statistic",
    type=click.Choice(["kappa", "quadratic-kappa", "alpha", "interval-alpha"]),
    help="The measure of agreement.  [default: kappa, or alpha where rows have several labels]",
)
@storage_option
@json_option
def command(
    name: str,
    labels: Path | None,
    score: str | None,
    evaluation: str | None,
    key: str | None,
    label: str | None,
    statistic: str | None,
    storage: str | None,
    as_json: bool,
) -> None:
    """Compare a judge's score in the experiment NAME with the labels of people.

    Without LABELS they are those that people have given in doteval view --allow-labels. LABELS is a file as csv,
    tsv, jsonl, json or parquet, with a line for each label: the key of a row (that of doteval export, or with
    --key a column of the dataset) and what a person said. Several lines of one row are the labels of several
    people.

    \b
    doteval judge-check nightly
    doteval export nightly to_label.csv --columns key,row.question,response
    doteval judge-check nightly labels.csv --score llm_judge
    doteval judge-check nightly labels.csv --key question --statistic alpha
    """
    from doteval.analysis.judge_check import check_judge
    from doteval.submission.judged_rows import judged_rows, read_labels

    if labels is None and (key or label):
        raise click.UsageError("--key and --label are columns of a file with labels: name it after the experiment.")
    given = None if labels is None else read_labels(labels, key or "key", label or "label")
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        found = judged_rows(store, experiment, given, evaluation=evaluation, score=score, column=key)
        check = check_judge(found.rows, statistic)
        if as_json:
            from doteval.cli import documents

            document = {"experiment": documents.experiment(experiment), "storage": store.url}
            documents.write(document | _document(found, check))
            return
        from doteval.cli import terminal

        _print(terminal.console(), found, check)


def _print(console: Console, found: JudgedRows, check: JudgeCheck) -> None:
    from doteval.analysis import figures
    from doteval.cli import terminal

    console.print(f"{found.evaluation}  {found.score}", style="bold", soft_wrap=True)
    table = Table("agreement", "value", "95% interval", "n", left=1)
    share = check.agreed / check.labels
    table.add_row("labels agreed with", figures.figure(share), figures.interval(check.share), f"{check.labels:,}")
    for title, agreement in _agreements(check):
        table.add_row(
            f"{agreement.statistic}, {title}",
            figures.figure(agreement.value),
            figures.interval(agreement.interval),
            f"{check.rows:,}" if agreement is check.agreement else "-",
        )
    terminal.print_table(console, table)
    if any(agreement.value is None for _, agreement in _agreements(check)):
        console.print("Where all values are the same, agreement beyond chance is not defined.")
    if check.matrix is not None:
        console.print()
        categories = check.categories
        matrix = Table("people \\ judge", *map(_shown, categories))
        for label in categories:
            matrix.add_row(_shown(label), *(f"{check.matrix.get((label, judged), 0):,}" for judged in categories))
        terminal.print_table(console, matrix)
        given = {label for label, _ in check.matrix}
        if len(given) == 1:
            only = _shown(given.pop())
            console.print(f"All labels are {only}, so agreement beyond chance says nothing. Label other rows too.")
    for note in found.notes:
        console.print(note, style="yellow", soft_wrap=True)


def _agreements(check: JudgeCheck) -> list[tuple[str, Agreement]]:
    people = [] if check.people is None else [("people alone", check.people)]
    return [("judge and people", check.agreement), *people]


def _shown(value: bool | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:g}"


def _document(found: JudgedRows, check: JudgeCheck) -> Document:
    return {
        "evaluation": found.evaluation,
        "score": found.score,
        "rows": check.rows,
        "labels": check.labels,
        "agreed": check.agreed,
        "agreed_interval": _ends(check.share),
        "agreement": _agreement(check.agreement),
        "people": None if check.people is None else _agreement(check.people),
        "matrix": None if check.matrix is None else _matrix(check.matrix, check),
        "labels_without_row": found.without_row,
        "labels_without_score": found.without_score,
    }


def _agreement(found: Agreement) -> Mapping[str, Any]:
    return {"statistic": found.statistic, "value": found.value, "interval": _ends(found.interval)}


def _ends(interval: Any) -> list[float] | None:
    return None if interval is None else list(interval)


def _matrix(matrix: Mapping[Any, int], check: JudgeCheck) -> list[Document]:
    return [
        {"label": label, "judged": judged, "count": matrix.get((label, judged), 0)}
        for label in check.categories
        for judged in check.categories
    ]
