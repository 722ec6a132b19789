"""`doteval compare`: whether an experiment is better or worse than another, row by row."""

from __future__ import annotations

import contextlib
import math
import sys
from typing import TYPE_CHECKING

import click

from doteval.cli.options import evaluation_option, existing_store, json_option, storage_option

if TYPE_CHECKING:
    from doteval.analysis.compare import Comparison
    from doteval.store import Store
    from doteval.store.comparisons import ComparisonOptions, Matched, Selection


@click.command("compare")
@click.argument("names", nargs=-1, required=True, metavar="[BASELINE[::EVALUATION]] OTHER[::EVALUATION]...")
@evaluation_option
@click.option("--score", "scores", multiple=True, metavar="NAME", help="Only this score; repeatable.")
@click.option("--cluster", metavar="COLUMN", help="Rows with the same value in this column are not independent.")
@click.option(
    "--key",
    metavar="COLUMN[=COLUMN]",
    help="Pair rows by a column, as in question=input where the others name it otherwise.  [default: their keys]",
)
@click.option(
    "--max-drop", type=click.FloatRange(min=0), metavar="X", help="The drop that is allowed, as in 0.01 for one point."
)
@click.option(
    "--lower-is-better", multiple=True, metavar="SCORE", help="A score of which lower values are better; repeatable."
)
@click.option("--fail-if-worse", is_flag=True, help="Exit with 1 if a score is worse, or an evaluation unfinished.")
@click.option("--strict", is_flag=True, help="As --fail-if-worse, and exit with 1 also if a verdict is UNDECIDED.")
@click.option(
    "--flips",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also print N rows that became worse and N that improved, with prompt and both responses.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Print N evaluations, the worst first, and count the others; 0 prints all.",
)
@click.option("--load-files", is_flag=True, help="Load the evaluation files, where they define metrics. No row runs.")
@click.option("--matrix", is_flag=True, help="Print only a table of experiments and parameters × evaluations.")
@storage_option
@json_option
def command(
    names: tuple[str, ...],
    evaluation: str | None,
    scores: tuple[str, ...],
    cluster: str | None,
    key: str | None,
    max_drop: float | None,
    lower_is_better: tuple[str, ...],
    fail_if_worse: bool,
    strict: bool,
    flips: int | None,
    limit: int,
    load_files: bool,
    matrix: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Compare experiments with a BASELINE, row by row, and say whether they are BETTER or WORSE.

    Evaluations of the same name are compared. Name one on each side to compare others, such as two
    parameters of one experiment. Rows are paired by their keys. With one name, or where BASELINE is
    the word `baseline`, it is the experiment of `doteval baseline set`.

    \b
    doteval compare base new
    doteval compare new
    doteval compare base new --max-drop 0.01 --fail-if-worse --strict
    doteval compare 'first::eval_x[a]' 'first::eval_x[b]' --flips 5
    doteval compare base new newer --matrix
    doteval compare ours imported --key question=input
    """
    if matrix and (fail_if_worse or strict or flips or load_files or key or max_drop is not None):
        raise click.UsageError("--matrix shows figures and gives no verdict. Leave the other options out.")
    if max_drop is not None and not math.isfinite(max_drop):
        raise click.BadParameter("it is not a number", param_hint="--max-drop")

    from doteval.store.comparisons import ComparisonOptions, match_evaluations, select_evaluations

    with existing_store(storage) as store:
        if len(names) == 1 and not matrix:
            names = (_baseline(store, names[0]), *names)
        selected = [select_evaluations(store, name, evaluation) for name in names]
        if matrix:
            _show_matrix(store, selected, scores, as_json=as_json)
            return
        matched = match_evaluations(selected[0], selected[1:])
        options = ComparisonOptions(
            cluster=cluster,
            key=None if key is None else _key_columns(key),
            max_drop=max_drop,
            scores=scores,
            lower_is_better=lower_is_better,
            changed_rows=flips or 0,
        )
        comparison = _compared(store, matched, options, load_files=load_files)
        _show(store, matched, comparison, limit or None, as_json=as_json)
    if fail_if_worse or strict:
        from doteval.analysis.compare import regressions
        from doteval.cli.thresholds import fail

        fail(regressions(comparison, strict=strict))


def _baseline(store: Store, other: str) -> str:
    """The name of the baseline, to compare another experiment with."""
    from doteval.store.baseline import BASELINE

    found = store.baseline.find()
    if found is None:
        raise click.UsageError(
            "A comparison takes two experiments or more, or a baseline to compare with: doteval baseline set NAME. "
            "--matrix shows one."
        )
    if other in (found[0].name, BASELINE):
        raise click.UsageError(f"{found[0].name!r} is the baseline itself. Name what to compare with it.")
    return found[0].name


def _key_columns(text: str) -> tuple[str, str]:
    """The column of the baseline and that of the others."""
    first, equals, second = text.partition("=")
    if not first or (equals and not second):
        raise click.BadParameter("it is COLUMN, or COLUMN=COLUMN", param_hint="--key")
    return first, second or first


def _compared(store: Store, matched: Matched, options: ComparisonOptions, *, load_files: bool) -> Comparison:
    from doteval.store.comparisons import compare_pairs

    if not load_files:
        return compare_pairs(store, matched, options)
    from doteval.submission.evaluation_files import with_evaluation_files

    found: list[Comparison] = []
    # A file may print while it is loaded. That must not end up in the comparison.
    with contextlib.redirect_stdout(sys.stderr):
        with_evaluation_files(
            [pair.other for pair in matched.pairs], lambda: found.append(compare_pairs(store, matched, options))
        )
    return found[0]


def _show(store: Store, matched: Matched, comparison: Comparison, limit: int | None, *, as_json: bool) -> None:
    from doteval.cli.comparisons import comparison_document, print_comparison
    from doteval.store.comparisons import compared

    pairs = compared(store, matched, comparison)
    if as_json:
        from doteval.cli import documents

        documents.write({"storage": store.url, **comparison_document(store, matched, comparison, pairs)})
    else:
        print_comparison(store, matched, comparison, pairs, limit)


def _show_matrix(store: Store, selected: list[Selection], scores: tuple[str, ...], *, as_json: bool) -> None:
    from doteval.cli.comparison_matrix import matrix_document, matrix_of, print_matrix

    found = matrix_of(store, selected, scores)
    if as_json:
        from doteval.cli import documents

        documents.write({"storage": store.url, **matrix_document(found)})
    else:
        print_matrix(found)
