"""`doteval report`: an experiment on one page, for people who did not run it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from doteval.cli.options import EXPERIMENT_NAME, evaluation_option, existing_store, json_option, storage_option
from doteval.cli.streams import say_aside
from doteval.cli.thresholds import enforce, threshold_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from doteval.analysis.judgement import Judgement
    from doteval.cli.thresholds import Thresholds
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.store import Store

STDOUT = Path("-")


@click.command("report")
@click.argument("name", type=EXPERIMENT_NAME)
@click.option(
    "--against", metavar="BASE[::EVALUATION]", help="The experiment to compare with, as in doteval compare BASE NAME."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it; - is stdout.  [default: NAME-report.html, or stdout for markdown]",
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["html", "markdown"]),
    help="HTML with charts, or Markdown with tables for tickets.  [default: markdown if FILE ends with .md, else html]",
)
@evaluation_option
@threshold_options
@storage_option
@json_option
def command(
    name: str,
    against: str | None,
    output: Path | None,
    format_name: str | None,
    evaluation: str | None,
    thresholds: Thresholds,
    storage: str | None,
    as_json: bool,
) -> None:
    """Write a report on the experiment NAME: one HTML file that needs no network, for people who did not run it.

    Its first screen answers whether it is good, better than BASE, and to be trusted. Below are the metrics, the
    comparison, distributions, the worst and the failed rows, cost, the course of the run, and how it was run. HTML
    needs doteval[report].

    \b
    doteval report nightly -o report.html
    doteval report nightly --against base
    doteval report nightly --against base --format markdown > ticket.md
    """
    as_markdown = (format_name or _format_of(output)) == "markdown"
    if as_json and (output == STDOUT or (output is None and as_markdown)):
        raise click.UsageError("--json writes to standard output, as the report would. Name a file with -o.")
    if not as_markdown:
        from doteval.report.page import check_installed

        check_installed()
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment, evaluation)
        judgement = _judged(store, experiment, evaluations, thresholds) if thresholds else None
        text = _text(store, experiment, evaluations, against or thresholds.baseline, judgement, as_markdown)
    if output is None:
        from doteval.report.page import file_name

        output = STDOUT if as_markdown else Path(file_name(experiment, "html"))
    size = _write(output, text)
    if as_json:
        from doteval.cli import documents

        written = {
            "file": str(output),
            "format": "markdown" if as_markdown else "html",
            "bytes": size,
            "missed": [] if judgement is None else [missed.message for missed in judgement.missed],
        }
        documents.write({"experiment": documents.experiment(experiment), "storage": store.url, **written})
    elif output != STDOUT:
        say_aside(f"Wrote {output} ({size / 1000:,.0f} kB)")
    if judgement is not None:
        enforce(judgement)


def _format_of(output: Path | None) -> str:
    return "markdown" if output is not None and output.suffix.lower() in (".md", ".markdown") else "html"


def _text(
    store: Store,
    experiment: Experiment,
    evaluations: Sequence[Evaluation],
    against: str | None,
    judgement: Judgement | None,
    as_markdown: bool,
) -> str:
    from doteval.report.contents import HeldThresholds
    from doteval.report.reading import read_report

    held = None
    if judgement is not None:
        held = HeldThresholds(tuple(_asked()), tuple(missed.message for missed in judgement.missed))
    contents = read_report(store, experiment, evaluations, against=against, thresholds=held)
    if as_markdown:
        from doteval.report.markdown import markdown_page

        return markdown_page(contents)
    from doteval.report.page import html_page

    return html_page(contents)


def _asked() -> list[str]:
    """The thresholds of the command line, as they were given."""
    given = click.get_current_context().params
    others = [name for name in ("fail_if_worse", "max_drop", "max_errors") if given[name] is not None]
    return [
        *(f"--fail-under {text}" for text in given["fail_under"]),
        *(f"--{name.replace('_', '-')} {given[name]}" for name in others),
    ]


def _judged(
    store: Store, experiment: Experiment, evaluations: Sequence[Evaluation], thresholds: Thresholds
) -> Judgement:
    from doteval.cli.show import read_figures

    return thresholds.judge(store, experiment, [(each, read_figures(store, each)) for each in evaluations])


def _write(output: Path, text: str) -> int:
    """Write a report, and return its number of bytes."""
    # A lone surrogate is no text that a file can hold; what makes the text has replaced them.
    data = text.encode()
    if output == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return len(data)
    from doteval.analysis.export import complete_file

    with complete_file(output) as file:
        file.write(data)
    return len(data)
