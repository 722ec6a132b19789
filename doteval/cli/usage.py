"""`doteval usage`: what an experiment used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.options import existing_store, json_option, storage_option

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.store import LoadUsage, ModelUsage, UsageReport

# Facts of one fixture in the table; the rest is in the JSON.
_FACTS_SHOWN = 6


@click.command("usage")
@click.argument("name")
@click.option("--by", type=click.Choice(["fixture", "model"]), help="Only the one table.")
@storage_option
@json_option
def command(name: str, by: str | None, storage: str | None, as_json: bool) -> None:
    """Show what the experiment NAME used.

    For each session fixture how often it was loaded, over all worker processes, and what its
    get_stats() said; for each model its requests and tokens. "spent" counts all requests, those
    for results too that were replaced later.
    """
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        report = store.usage.report(experiment)
        if as_json:
            from doteval.cli import documents

            document = documents.usage_report(report)
            if by is not None:
                document = {f"{by}s": document[f"{by}s"]}
            documents.write({"experiment": documents.experiment(experiment), "storage": store.url, **document})
            return
        from doteval.cli import terminal

        print_usage(terminal.console(), report, by=by)


def print_usage(console: Console, report: UsageReport, *, by: str | None = None) -> None:
    """The tables of a usage report; `by` is "fixture" or "model" for one of them, None for both."""
    if by in (None, "fixture"):
        _print_loads(console, report.loads)
    if by in (None, "model"):
        _print_models(console, report.models)
    if not report.loads and not report.models:
        console.print("No session fixtures were loaded, and no calls to models recorded")


def _print_loads(console: Console, loads: Sequence[LoadUsage]) -> None:
    from doteval.cli import terminal

    if not loads:
        return
    table = terminal.table("session fixture", "loads", "load time", "torn down")
    table.add_column("what it says", overflow="fold")
    for load in loads:
        table.add_row(
            terminal.plain(load.fixture),
            terminal.count(load.loads),
            terminal.duration(load.load_seconds),
            terminal.count(load.torn_down),
            terminal.plain(_facts(load.stats)),
        )
    console.print(table)
    for load in loads:
        for error in load.errors:
            console.print(terminal.plain(f"{load.fixture} could not be loaded: {error}"), style="red")
    console.print()


def _print_models(console: Console, models: Sequence[ModelUsage]) -> None:
    from doteval.cli import terminal

    if not models:
        return
    table = terminal.table("model", "requests", "tries", "cached", "tokens in", "tokens out", "cost", "spent")
    for model in models:
        usage = model.usage
        table.add_row(
            terminal.plain(usage.model),
            terminal.count(usage.requests),
            terminal.count(usage.attempts),
            terminal.count(usage.cache_hits),
            terminal.count(usage.prompt_tokens),
            terminal.count(usage.completion_tokens),
            terminal.money(usage.cost),
            terminal.count(model.spent.requests),
        )
    console.print(table)
    console.print()


def _facts(stats: Mapping[str, Any]) -> str:
    """The first facts of the stats, without zeros: ``{"cache": {"hits": 1}}`` → ``cache hits 1``."""
    facts = list(_each_fact(stats))
    more = len(facts) - _FACTS_SHOWN
    return ", ".join(facts[:_FACTS_SHOWN]) + (f", and {more} more (--json)" if more > 0 else "")


def _each_fact(stats: Mapping[str, Any], above: str = "") -> Iterator[str]:
    # What is said directly comes before what is said in mappings: totals before details.
    for name, value in stats.items():
        label = f"{above}{name}".replace("_", " ")
        if isinstance(value, Mapping) or (value == 0 and not isinstance(value, bool)):
            continue
        if isinstance(value, float):
            yield f"{label} {value:,.4g}" if abs(value) < 1000 else f"{label} {value:,.0f}"
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{label} {value:,}"
        elif isinstance(value, list | tuple | set | frozenset):
            yield f"{label} {' '.join(map(str, value))}"
        else:
            yield f"{label} {value}"
    for name, value in stats.items():
        if isinstance(value, Mapping):
            yield from _each_fact(value, f"{above}{name} ")
