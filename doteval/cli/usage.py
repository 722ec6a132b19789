"""`doteval usage`: the loads, calls, tokens and cost of an experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from doteval.analysis.figures import count, figures_of, money
from doteval.cli.options import EXPERIMENT_NAME, existing_store, json_option, storage_option
from doteval.core.histogram import QUANTILES
from doteval.core.tables import Table
from doteval.core.wording import counted, duration
from doteval.store.price_origin import origin_line, price_origin

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.cli.documents import Document
    from doteval.core.experiments import Experiment
    from doteval.core.results import Usage
    from doteval.store import LoadUsage, ModelUsage, Store, UsageGroup, UsageReport, WorkerUsage

# The table shows so many figures of one fixture; the JSON has them all.
_FACTS_SHOWN = 6


@click.command("usage")
@click.argument("name", type=EXPERIMENT_NAME)
@click.option(
    "--by",
    type=click.Choice(["fixture", "model", "worker", "evaluation"]),
    help="Only this table, or the models broken down by it.",
)
@storage_option
@json_option
def command(name: str, by: str | None, storage: str | None, as_json: bool) -> None:
    """Show what the experiment NAME used.

    For each session fixture: its loads over all worker processes, and what its get_stats() returned. For
    each model: requests, tries, cache hit rate, tokens and cost of the stored results, the latency of
    replies (p50, p95, p99), and the time that rows waited for rate limits. "spent" counts all tokens that were
    paid. Where that is more, because rows were killed or repeated, a line says by how much. --by worker also
    shows the rows and the loads of each worker process.
    """
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        if as_json:
            from doteval.cli import documents

            document = {"experiment": documents.experiment(experiment), "storage": store.url}
            documents.write(document | _document(store, experiment, by))
            return
        from doteval.cli import terminal

        console = terminal.console()
        if by == "worker":
            _print_workers(console, store.usage.by_worker(experiment))
        elif by == "evaluation":
            _print_groups(console, by, store.usage.by_evaluation(experiment))
        else:
            report = store.usage.report(experiment)
            print_usage(console, report, price_origin(store, experiment, report.models), by=by)


def _document(store: Store, experiment: Experiment, by: str | None) -> Document:
    from doteval.cli import documents

    if by == "worker":
        return documents.usage_of_workers(store.usage.by_worker(experiment))
    if by == "evaluation":
        return documents.usage_of_evaluations(store.usage.by_evaluation(experiment))
    report = store.usage.report(experiment)
    document = documents.usage_report(report)
    prices = {"prices": price_origin(store, experiment, report.models)}
    return document | prices if by is None else {f"{by}s": document[f"{by}s"]}


def print_usage(
    console: Console, report: UsageReport, prices: Document | None = None, *, by: str | None = None
) -> None:
    """Print the tables of a usage report. `by` is "fixture" or "model" for one of them, None for both.

    prices: what `price_origin` says of the costs.
    """
    if by in (None, "fixture"):
        _print_loads(console, report.loads)
    if by in (None, "model") and report.models:
        _print_models(console, ("model",), [((model.usage.name,), model) for model in report.models], prices)
    if not report.loads and not report.models:
        console.print("No session fixtures were loaded, and no calls to models recorded")


def _print_workers(console: Console, workers: Sequence[WorkerUsage]) -> None:
    from doteval.cli import terminal

    if not workers:
        console.print("No worker process has run rows")
        return
    table = Table("worker", "rows", "requests", "tokens", "loads", "load time")
    for worker in workers:
        spent = worker.spent
        table.add_row(
            worker.name or "-",
            count(worker.rows),
            count(spent.requests),
            count(_tokens(spent)),
            count(sum(load.loads for load in worker.loads)),
            duration(sum(load.load_seconds for load in worker.loads)),
        )
    terminal.print_table(console, table)
    console.print()
    _print_groups(console, "worker", workers)


def _print_groups(console: Console, by: str, groups: Sequence[UsageGroup | WorkerUsage]) -> None:
    lines = [((group.name or "-", model.usage.name), model) for group in groups for model in group.models]
    if lines:
        _print_models(console, (by, "model"), lines)
    else:
        console.print("No calls to models recorded")


def _print_loads(console: Console, loads: Sequence[LoadUsage]) -> None:
    from doteval.cli import terminal

    if not loads:
        return
    table = Table("session fixture", "loads", "load time", "torn down", "statistics", prose=True)
    for load in loads:
        table.add_row(
            load.fixture,
            count(load.loads),
            duration(load.load_seconds),
            count(load.torn_down),
            _facts(load.stats),
        )
    terminal.print_table(console, table)
    for load in loads:
        for error in load.errors:
            console.print(f"{load.fixture} could not be loaded: {error}", style="red")
    console.print()


def _print_models(
    console: Console,
    names: Sequence[str],
    lines: Sequence[tuple[tuple[str, ...], ModelUsage]],
    prices: Document | None = None,
) -> None:
    from doteval.cli import terminal

    figures = ("requests", "tries", "hit rate", "tokens in", "tokens out", "cost")
    times = [name for name, _ in QUANTILES]
    table = Table(*names, *figures, *times, "waited", "spent", left=len(names))
    for line, model in lines:
        usage, spent = model.usage, model.spent
        table.add_row(
            *line,
            count(usage.requests),
            count(usage.attempts),
            _percent(usage.hit_rate),
            count(usage.prompt_tokens),
            count(usage.completion_tokens),
            money(usage.cost),
            *(duration(usage.latency.quantile(share)) for _, share in QUANTILES),
            duration(usage.waited),
            count(_tokens(spent)),
        )
    terminal.print_table(console, table)
    besides = _besides([model for _, model in lines])
    if besides:
        console.print(
            f"Paid besides: {besides}, by executions without a stored result (killed, repeated, or of rows that are "
            "pending; their replies are replayed where they can be) and by shared fixtures. Budgets count both."
        )
    if prices is not None:
        console.print(origin_line(prices))
    unpriced, priced_in_part = _unpriced_tokens(model for _, model in lines)
    if unpriced:
        console.print(
            f"No price is known for {', '.join(unpriced)}: tokens only. Name a price table with the setting `prices`."
        )
    for name, tokens in priced_in_part.items():
        console.print(
            f"{counted(tokens, 'token')} of {name} are not in its cost: they have no price, those of another provider, "
            "say. Name a price table with the setting `prices`.",
            style="yellow",
        )
    silent = {model.spent.model: None for _, model in lines if _reports_no_tokens(model)}
    if silent:
        console.print(
            f"The replies of {', '.join(silent)} reported no tokens. None are counted, and no budget of tokens or cost "
            'holds them. A stream reports them with stream_options={"include_usage": True}.',
            style="yellow",
        )
    unfinished: Counter[str] = Counter()
    for _, model in lines:
        unfinished[model.spent.model] += model.spent.unfinished
    for name, tries in (+unfinished).items():
        console.print(
            f"{counted(tries, 'try', 'tries')} of {name} ended unseen: the process was killed, or did not read the "
            "reply to its end. They count as requests of the budget; their tokens are not known.",
            style="yellow",
        )
    console.print()


def _besides(models: Sequence[ModelUsage]) -> str:
    """Return the line about what was paid for executions without a stored result, "" if that is nothing."""
    requests = sum(each.spent.requests - each.usage.requests for each in models)
    tokens = sum(_tokens(each.spent) - _tokens(each.usage) for each in models)
    cost = sum((each.spent.cost or 0.0) - (each.usage.cost or 0.0) for each in models)
    parts = [counted(requests, "request")] if requests > 0 else []
    parts += [counted(tokens, "token")] if tokens > 0 else []
    # Sums of many floats differ in their last digits.
    parts += [money(cost)] if cost > 1e-9 else []
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _tokens(usage: Usage) -> int:
    return usage.prompt_tokens + usage.completion_tokens


def _unpriced_tokens(models: Iterable[ModelUsage]) -> tuple[Counter[str], Counter[str]]:
    """The tokens without a price by model: of models whose tokens all have none, and of the others."""
    tokens: Counter[str] = Counter()
    priced: set[str] = set()
    for model in models:
        tokens[model.spent.model] += model.unpriced
        if model.spent.cost is not None:
            priced.add(model.spent.model)
    tokens = +tokens
    return (
        Counter({name: count for name, count in tokens.items() if name not in priced}),
        Counter({name: count for name, count in tokens.items() if name in priced}),
    )


def _reports_no_tokens(model: ModelUsage) -> bool:
    spent = model.spent
    return bool(spent.latency.counts) and not spent.prompt_tokens and not spent.completion_tokens


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _facts(stats: Mapping[str, Any]) -> str:
    """Return the first figures of the statistics, without zeros: ``{"cache": {"hits": 1}}`` → ``cache hits 1``."""
    facts = list(figures_of(stats))
    more = len(facts) - _FACTS_SHOWN
    return ", ".join(facts[:_FACTS_SHOWN]) + (f", and {more} more (--json)" if more > 0 else "")
