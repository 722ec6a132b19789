"""The records that the options of `doteval show` select: by a filter, sorted, as a table, or summed up by groups."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from doteval.analysis import record_documents
from doteval.analysis.figures import count, figure, interval
from doteval.analysis.groups import GroupSummary, GroupTotals
from doteval.analysis.readable_values import short_value
from doteval.analysis.record_fields import record_value
from doteval.cli.readable import print_record
from doteval.core.filter_grammar import parse_field, parse_filter
from doteval.core.filters import STATUS, AllOf, FieldKind, Filter, FilterField, failed_rows, wrong_rows
from doteval.core.results import Record
from doteval.core.tables import Table
from doteval.store.selections import SortOrder

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.experiments import Evaluation
    from doteval.store import Store

LIMIT = 20
_ATTEMPTS = FilterField(FieldKind.RESULT, "attempts")


@dataclass(frozen=True, slots=True)
class SelectOptions:
    """The options of `doteval show` that select records. `limit` 0 is none."""

    wrong: bool = False
    failed: bool = False
    where: str | None = None
    sort: str | None = None
    limit: int | None = None
    columns: str | None = None
    group_by: str | None = None
    cluster: str | None = None

    @property
    def given(self) -> bool:
        """Whether any of them is given that selects records or groups."""
        return replace(self, cluster=None) != SelectOptions()


@dataclass(frozen=True, slots=True)
class Selected:
    """What the options mean for the evaluations of an experiment. Without `columns`, each has its own."""

    where: Filter | None
    sort: SortOrder | None
    limit: int | None
    columns: tuple[FilterField, ...]
    group_by: FilterField | None
    full: bool
    failed_as_false: bool
    cluster: str | None = None

    def records(self, store: Store, evaluation: Evaluation) -> Iterator[Record]:
        """The records of an evaluation."""
        return store.selections.records(evaluation.id, self.where, sort=self.sort, limit=self.limit)

    def groups(self, store: Store, evaluation: Evaluation) -> list[GroupSummary]:
        """The groups of an evaluation."""
        assert self.group_by is not None
        totals = GroupTotals()
        store.selections.add_groups(totals, evaluation.id, self.group_by, self.where)
        clusters = None
        if self.cluster is not None:
            from doteval.store.clusters import clusters_of

            clusters = clusters_of(store, evaluation, self.cluster)
        return totals.summaries(failed_as_false=self.failed_as_false, clusters=clusters)


def select(
    store: Store, evaluations: Sequence[Evaluation], options: SelectOptions, *, full: bool, failed_as_false: bool
) -> Selected:
    """Read the options. The fields are those that any of the evaluations has.

    Raises UsageError: a field does not exist, or a text is no filter.
    """
    texts = [options.where, options.sort, options.columns, options.group_by]
    names = store.selections.names(evaluations, texts)
    parts: list[Filter] = []
    if options.failed:
        parts.append(failed_rows())
    if options.wrong:
        parts.append(wrong_rows(names.scores or ()))
    if options.where is not None:
        parts.append(parse_filter(options.where, names))
    sort = None
    if options.sort is not None:
        field = parse_field(options.sort.removeprefix("-"), names)
        sort = SortOrder(field, options.sort.startswith("-"))
    shown = [parse_field(each, names) for each in (options.columns or "").split(",") if each.strip()]
    group_by = None if options.group_by is None else parse_field(options.group_by, names)
    limit = LIMIT if options.limit is None else options.limit or None
    return Selected(
        AllOf(tuple(parts)) if parts else None,
        sort,
        limit,
        tuple(shown),
        group_by,
        full,
        failed_as_false,
        options.cluster,
    )


def print_selected(console: Console, store: Store, evaluation: Evaluation, selected: Selected) -> None:
    """Print the records, or the groups, of an evaluation."""
    if selected.group_by is not None:
        _print_groups(console, selected.group_by, selected.groups(store, evaluation))
        return
    # One more than is shown, to know whether there are more.
    found = replace(selected, limit=None if selected.limit is None else selected.limit + 1).records(store, evaluation)
    shown = 0
    kept = found if selected.limit is None else itertools.islice(found, selected.limit)
    if selected.full:
        for record in kept:
            print_record(console, record)
            console.print()
            shown += 1
    else:
        shown = _print_table(console, store, evaluation, selected, kept)
    if shown == 0:
        console.print("No results match.\n")
    elif selected.limit is not None and next(found, None) is not None:
        console.print(f"These are the first {shown:,}; --limit N shows N, and --limit 0 all", style="yellow")
    if shown and not selected.full:
        name = shlex.quote(evaluation.experiment.name)
        console.print(f"One of them in full: doteval show {name} --row N\n", soft_wrap=True)


def _print_table(
    console: Console, store: Store, evaluation: Evaluation, selected: Selected, records: Iterator[Record]
) -> int:
    from doteval.cli import terminal

    shown = 0
    # A table needs its rows to find the width of its columns, so that a long one is printed in parts.
    while part := list(itertools.islice(records, 1000)):
        fields = list(selected.columns) or _default_columns(store, evaluation)
        if any(record.row.sample for record in part) and not any(field.name == "sample" for field in fields):
            fields.insert(1, FilterField(FieldKind.RESULT, "sample"))
        table = Table(*map(str, fields), left=len(fields), prose=True)
        for record in part:
            values = _values(store, evaluation, record, fields)
            table.add_row(*(short_value(value) for value in values))
        terminal.print_table(console, table)
        shown += len(part)
    return shown


def _default_columns(store: Store, evaluation: Evaluation) -> list[FilterField]:
    scores = [FilterField(FieldKind.SCORE, name) for name in store.selections.score_names(evaluation.id)]
    columns = [FilterField(FieldKind.ROW, name) for name in evaluation.spec.columns]
    return [
        FilterField(FieldKind.RESULT, "index"),
        STATUS,
        *scores,
        *columns,
        FilterField(FieldKind.RESULT, "response"),
    ]


def _values(store: Store, evaluation: Evaluation, record: Record, fields: Sequence[FilterField]) -> list[Any]:
    attempts = None
    if _ATTEMPTS in fields:
        tried = store.attempts.of_row(evaluation.id, record.row.index)
        attempts = sum(attempt.sample == record.row.sample for attempt in tried)
    return [record_value(record, field, attempts=attempts) for field in fields]


def _print_groups(console: Console, by: FilterField, groups: Sequence[GroupSummary]) -> None:
    from doteval.cli import terminal

    table = Table(str(by), "score", "mean", "95% interval", "n", "results", "errors", "skipped", left=2)
    for group in groups:
        counts = [count(number) for number in (group.results, group.failed, group.skipped)]
        for name, score in group.scores.items():
            figures = [figure(score.mean), interval(score.interval), count(score.n)]
            table.add_row(short_value(group.group), name, *figures, *counts)
        if not group.scores:
            table.add_row(short_value(group.group), "no scores", "-", "-", "0", *counts)
    if not groups:
        console.print("No results match.")
    terminal.print_table(console, table)
    console.print()


def selected_document(store: Store, evaluation: Evaluation, selected: Selected, *, as_columns: bool) -> dict[str, Any]:
    """The records, or the groups, of an evaluation for `--json`; with `as_columns` records hold only the fields."""
    from doteval.cli import documents

    document = documents.evaluation(evaluation)
    if selected.group_by is not None:
        groups = selected.groups(store, evaluation)
        return {**document, "group_by": str(selected.group_by), "groups": list(map(documents.group, groups))}
    records = selected.records(store, evaluation)
    if not as_columns:
        return {**document, "records": documents.Streamed(map(record_documents.record, records))}
    names = list(map(str, selected.columns))
    lines = (
        dict(
            zip(names, map(record_documents.stored, _values(store, evaluation, record, selected.columns)), strict=True)
        )
        for record in records
    )
    return {**document, "records": documents.Streamed(lines)}
