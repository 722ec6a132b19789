"""Prints comparisons, and makes their JSON documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from doteval.analysis import record_documents
from doteval.analysis.compare import (
    ChangedRow,
    Comparison,
    MetricComparison,
    Verdict,
    power_sentence,
)
from doteval.analysis.figures import count, difference_interval, figure, money, signed
from doteval.analysis.readable_values import as_text, short_value
from doteval.cli import terminal
from doteval.core.experiments import Evaluation
from doteval.core.tables import Table, wrap
from doteval.core.wording import counted, duration
from doteval.store import Store
from doteval.store.comparisons import ComparedPair, EvaluationPair, Matched, Spending
from doteval.store.price_origin import price_notes, price_origin_of

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.experiments import Experiment
    from doteval.core.results import Record

_STYLES = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.NO_DIFFERENCE: "bold",
    Verdict.UNDECIDED: "bold yellow",
}
# Characters of a prompt or a response that a flipped row shows; `doteval show --row` shows all.
_TEXT_SHOWN = 2_000


def print_comparison(
    store: Store, matched: Matched, comparison: Comparison, pairs: Sequence[ComparedPair], limit: int | None = None
) -> None:
    """Print each pair of evaluations with its metrics, and the verdict on all of them.

    limit: print at most so many pairs, the worst first, and say how many others there are.
    """
    console = terminal.console()
    shown, others = list(pairs), []
    if limit is not None and len(pairs) > limit:
        ordered = sorted(pairs, key=lambda pair: pair.comparison.verdict.rank)
        shown, others = ordered[:limit], ordered[limit:]
    for pair in shown:
        _print_pair(console, store, pair)
    if others:
        verdicts = Counter(pair.comparison.verdict for pair in others)
        counts = ", ".join(f"{number:,} {verdict.value}" for verdict, number in verdicts.items())
        more = f"and {counted(len(others), 'more evaluation')}: {counts} (--limit 0 prints all)"
        _print_wrapped(console, more)
        console.print()
    for what, style in (
        ([f"{each.experiment} has no evaluation {each.evaluation}" for each in comparison.missing], "bold yellow"),
        ([f"Only {each.experiment.name} has {each.spec.nodeid}" for each in matched.only_others], "yellow"),
    ):
        for line in what[:limit]:
            console.print(f"{line}: it is not compared", style=style, soft_wrap=True)
        if (left := len(what[:limit])) < len(what):
            console.print(f"and {len(what) - left:,} more", style=style)
    for line in price_notes({of.name: origin for of, origin in _price_origins(store, shown)}):
        _print_wrapped(console, line)
    console.print(Text.assemble("Verdict: ", (comparison.verdict.value, _STYLES[comparison.verdict])))


def _price_origins(store: Store, pairs: Iterable[ComparedPair]) -> Iterator[tuple[Experiment, dict[str, Any] | None]]:
    """Where the prices come from, by experiment; of those that have a cost."""
    sides = ((pair.pair, pair.baseline_spending, pair.spending) for pair in pairs)
    costs = (
        (each, used) for pair, *both in sides for each, used in zip((pair.baseline, pair.other), both, strict=True)
    )
    priced = {each.experiment.id: each.experiment for each, used in costs if used.usage.cost is not None}
    yield from ((experiment, price_origin_of(store, experiment)) for experiment in priced.values())


def _print_pair(console: Console, store: Store, pair: ComparedPair) -> None:
    found = pair.comparison
    names = _names(pair.pair)
    console.print(_heading(pair.pair), soft_wrap=True)
    for difference in pair.differences:
        _print_wrapped(console, f"WARNING: {difference}", style="yellow")
    _print_wrapped(console, f"{counted(found.matched, 'row is', 'rows are')} in both")
    for gap in found.gaps:
        _print_wrapped(console, str(gap), style="yellow")
    for metric in found.metrics:
        console.print()
        _print_metric(console, metric, found.matched)
        for row in metric.changed:
            _print_changed(console, store, pair.pair, names, row)
    for score in found.only_other:
        _print_wrapped(console, f"Only {names[1]} has the score {score}: it is not compared", style="yellow")
    console.print()
    _print_spending(console, names, pair.baseline_spending, pair.spending)
    console.print()


def _names(pair: EvaluationPair) -> tuple[str, str]:
    """The names of both sides: of their experiments, or of their evaluations if these are of one experiment."""
    sides = (pair.baseline, pair.other)
    if sides[0].experiment.id == sides[1].experiment.id:
        return sides[0].name, sides[1].name
    return sides[0].experiment.name, sides[1].experiment.name


def _heading(pair: EvaluationPair) -> Text:
    """Return the line that names both sides. A file or an evaluation that both share stands in it once."""
    left, right = pair.baseline, pair.other
    names = _names(pair)
    if left.experiment.id == right.experiment.id:
        files = dict.fromkeys((left.spec.path, right.spec.path))
        where = f"{' → '.join(files)}, experiment {left.experiment.name}"
    elif left.spec.path == right.spec.path and left.name != right.name:
        where = f"{left.spec.nodeid} → {right.name}"
    else:
        where = " → ".join(dict.fromkeys((left.spec.nodeid, right.spec.nodeid)))
    return Text.assemble((f"{names[0]} → {names[1]}", "bold"), f"  {where}")


def _print_metric(console: Console, metric: MetricComparison, matched: int) -> None:
    name = metric.name
    tolerated = " (the drop is allowed)" if metric.tolerated else ""
    figures = ""
    if metric.difference is not None:
        figures = f"  {figure(metric.baseline)} → {figure(metric.value)}"
    heading = Text.assemble((metric.verdict.value, _STYLES[metric.verdict]), tolerated, f"  {name}", (figures, "bold"))
    console.print(heading, soft_wrap=True)
    if metric.difference is not None:
        # A change of a thousandth matters as little as any rounding, but 0.0004 is not 0.000.
        parts = [f"difference {signed(metric.difference)}"]
        parts.append(f"95% interval {difference_interval(metric.interval)}" if metric.interval else "no interval")
        if metric.adjusted_p_value is not None and metric.p_value is not None:
            same = f"{metric.adjusted_p_value:.2g}" == f"{metric.p_value:.2g}"
            alone = "" if same else f" ({metric.p_value:.2g} alone)"
            parts.append(f"p {metric.adjusted_p_value:.2g}{alone}")
        _print_wrapped(console, ", ".join(parts), indent=2)
    if metric.improved is not None and metric.worsened is not None:
        same_rows = metric.n - metric.improved - metric.worsened
        rows = f"{counted(metric.improved, 'row')} better, {metric.worsened:,} worse, {same_rows:,} equal"
        if matched > metric.n:
            rows += f", {matched - metric.n:,} without a value on both sides"
        _print_wrapped(console, rows, indent=2)
    if (sentence := power_sentence(metric)) is not None:
        _print_wrapped(console, sentence, indent=2)
    for reason in metric.reasons:
        _print_wrapped(console, reason, indent=2, style="yellow")


def _print_wrapped(console: Console, text: str, *, indent: int = 0, style: str = "") -> None:
    first, *more = wrap(text, max(20, console.width - indent - 2))
    console.print(Text(" " * indent + first, style), soft_wrap=True)
    for line in more:
        console.print(Text(" " * (indent + 2) + line, style), soft_wrap=True)


def _print_changed(
    console: Console, store: Store, pair: EvaluationPair, names: tuple[str, str], row: ChangedRow
) -> None:
    failed = [name for name, flag in zip(names, row.failed, strict=True) if flag]
    where = f"row {row.index}" if row.index == row.baseline_index else f"row {row.baseline_index} → {row.index}"
    shown = f"{short_value(row.baseline)} → {short_value(row.value)}"
    also = f"  failed in {' and '.join(failed)}" if failed else ""
    console.print(Text.assemble(("  " + where, "bold"), f"  {shown}{also}"), soft_wrap=True)
    before, after = _records(store, pair, row)
    prompt = _shown(after, "prompt") or _shown(before, "prompt")
    for label, text in (("prompt", prompt), (names[0], _answer(before)), (names[1], _answer(after))):
        if text:
            console.print(f"    {label}: " + text.replace("\n", "\n      "), soft_wrap=True)


def _records(store: Store, pair: EvaluationPair, row: ChangedRow) -> tuple[Record | None, Record | None]:
    """The first sample of a row on either side."""

    def first(evaluation: Evaluation, index: int) -> Record | None:
        return next(iter(store.results.of_row(evaluation.id, index)), None)

    return first(pair.baseline, row.baseline_index), first(pair.other, row.index)


def _shown(record: Record | None, name: str) -> str | None:
    value = None if record is None else getattr(record.outcome, name)
    if value is None:
        return None
    text = as_text(value)
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]} ... ({len(text):,} characters)"


def _answer(record: Record | None) -> str | None:
    if record is None:
        return None
    error = record.outcome.error
    if error is not None:
        return f"{error.type}: {error.message}"
    return _shown(record, "model_response")


def _print_spending(console: Console, names: tuple[str, str], before: Spending, after: Spending) -> None:
    table = Table("", *names, "change")
    for title, pair, shown in _spending_lines(before, after):
        if pair != (None, None) and any(pair):
            cells = [figure(None) if value is None else shown(value) for value in pair]
            # Two times of no length that is worth showing have no change that is.
            table.add_row(title, *cells, "-" if cells[0] == cells[1] else _change(*pair))
    if len(table):
        terminal.print_table(console, table)


def _spending_lines(before: Spending, after: Spending) -> Iterator[tuple[str, tuple[float | None, float | None], Any]]:
    sides = (before, after)
    whole = count
    yield "cost", (before.usage.cost, after.usage.cost), money
    yield "requests", (before.usage.requests, after.usage.requests), whole
    yield "tokens in", (before.usage.prompt_tokens, after.usage.prompt_tokens), whole
    yield "tokens out", (before.usage.completion_tokens, after.usage.completion_tokens), whole
    quantiles = [side.usage.latency.quantile(0.5) for side in sides]
    yield "reply, median", (quantiles[0], quantiles[1]), duration
    yield "row, mean", (before.row_seconds, after.row_seconds), duration


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None or not before:
        return "-"
    return f"{after / before - 1:+.1%}"


# --json


def comparison_document(
    store: Store, matched: Matched, comparison: Comparison, pairs: Sequence[ComparedPair]
) -> dict[str, Any]:
    """The document of ``--json``; docs/reference/json.md says what its keys mean."""
    origins = {of.id: origin for of, origin in _price_origins(store, pairs)}
    return {
        "verdict": comparison.verdict,
        "max_drop": comparison.max_drop,
        "evaluations": [_pair_document(store, pair, origins) for pair in pairs],
        "missing": [
            {"experiment": missing.experiment, "evaluation": missing.evaluation} for missing in comparison.missing
        ],
        "only_others": [
            {"experiment": evaluation.experiment.name, "evaluation": evaluation.spec.nodeid}
            for evaluation in matched.only_others
        ],
    }


def _pair_document(store: Store, pair: ComparedPair, origins: Mapping[int, dict[str, Any] | None]) -> dict[str, Any]:
    found = pair.comparison
    return {
        "verdict": found.verdict,
        "baseline": {"experiment": found.baseline, "evaluation": pair.pair.baseline.spec.nodeid},
        "other": {"experiment": found.experiment, "evaluation": pair.pair.other.spec.nodeid},
        "rows_matched": found.matched,
        "gaps": [
            {"side": gap.experiment, "what": gap.what, "rows": gap.count, "examples": list(gap.rows)}
            for gap in found.gaps
        ],
        "unfinished": list(found.unfinished),
        "differences": pair.differences,
        "only_other_scores": list(found.only_other),
        "metrics": [_metric_document(store, pair.pair, metric) for metric in found.metrics],
        "spending": {
            "baseline": _spending_document(pair.baseline_spending, origins.get(pair.pair.baseline.experiment.id)),
            "other": _spending_document(pair.spending, origins.get(pair.pair.other.experiment.id)),
        },
    }


def _metric_document(store: Store, pair: EvaluationPair, metric: MetricComparison) -> dict[str, Any]:
    return {
        "score": metric.score,
        "metric": metric.metric,
        "verdict": metric.verdict,
        "tolerated": metric.tolerated,
        "reasons": list(metric.reasons),
        "better": metric.better,
        "n": metric.n,
        "units": metric.units,
        "baseline": metric.baseline,
        "value": metric.value,
        "difference": metric.difference,
        "interval": None if metric.interval is None else list(metric.interval),
        "interval_method": None if metric.interval is None else metric.interval.method,
        "p_value": metric.p_value,
        "adjusted_p_value": metric.adjusted_p_value,
        "test": metric.test,
        "improved": metric.improved,
        "worsened": metric.worsened,
        "missing": metric.missing,
        "worst_difference": metric.worst_difference,
        "detectable_difference": metric.detectable,
        "flips": [_flip_document(store, pair, row) for row in metric.changed],
    }


def _flip_document(store: Store, pair: EvaluationPair, row: ChangedRow) -> dict[str, Any]:
    before, after = _records(store, pair, row)
    return {
        "baseline_row": row.baseline_index,
        "row": row.index,
        "baseline": row.baseline,
        "value": row.value,
        "baseline_record": None if before is None else record_documents.record(before),
        "record": None if after is None else record_documents.record(after),
    }


def _spending_document(spending: Spending, prices: dict[str, Any] | None) -> dict[str, Any]:
    # The sum is of judges and others, in batches and not.
    of_one_kind = ("judge", "batch")
    used = {name: value for name, value in record_documents.usage(spending.usage).items() if name not in of_one_kind}
    return {
        "models": list(spending.models),
        "usage": used,
        "prices": None if spending.usage.cost is None else prices,
        "row_seconds": spending.row_seconds,
    }
