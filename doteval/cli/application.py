"""The `doteval` command: its subcommands in groups, each imported when it is called."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from doteval import __version__


@dataclass(frozen=True, slots=True)
class Entry:
    """A command in the overview. Its module has the same name, with _ for -, and holds an object named `command`."""

    name: str
    help: str


GROUPS: dict[str, tuple[Entry, ...]] = {
    "Evaluate": (
        Entry("init", "Write an evaluation to start from, which runs at once"),
        Entry("submit", "Evaluate on worker processes, here or elsewhere"),
        Entry("worker", "Serve evaluation files as a long-lived worker"),
        Entry("retry", "Run failed rows again"),
        Entry("rescore", "Score recorded replies again, with changed evaluators"),
        Entry("cancel", "Stop an experiment"),
    ),
    "Follow": (
        Entry("status", "Show how far an experiment is"),
        Entry("watch", "Follow an experiment until it is completed"),
        Entry("doctor", "Check that everything is there, and say what to fix"),
    ),
    "Read": (
        Entry("list", "List experiments, the newest first"),
        Entry("show", "Show the metrics of an experiment, or its records"),
        Entry("compare", "Compare experiments row by row: better, worse, or not known"),
        Entry("baseline", "Say which experiment others are compared with"),
        Entry("judge-check", "Compare a judge with the labels of people"),
        Entry("history", "Show how a score went from experiment to experiment"),
        Entry("usage", "Show what an experiment used: loads, calls, tokens, cost"),
        Entry("report", "Write an experiment as one page: HTML or Markdown"),
        Entry("view", "Show experiments, rows and comparisons in the browser"),
    ),
    "Data": (
        Entry("query", "Answer an SQL query over the store"),
        Entry("export", "Write the results to a file: csv, jsonl, parquet, arrow"),
        Entry("import", "Read logs of inspect-ai and dotevals, and tables of scores"),
        Entry("recompute", "Compute the metrics anew from the stored scores"),
    ),
    "Manage": (
        Entry("tag", "Give an experiment tags and a note"),
        Entry("rename", "Give an experiment another name"),
        Entry("delete", "Delete an experiment and all its results"),
        Entry("prune", "Delete old experiments"),
        Entry("datasets", "List the datasets that @foreach.NAME knows"),
    ),
    "Operate": (
        Entry("flower", "Show worker processes and row tasks in the browser"),
        Entry("metrics", "Serve the figures of the store to Prometheus"),
        Entry("drain", "Let a worker service finish its rows and leave"),
        Entry("db", "Show, upgrade, back up and copy the result store"),
        Entry("docs", "Show a page of the documentation here in the terminal"),
        Entry("completion", "Write the script with which a shell completes commands"),
    ),
}


@dataclass(frozen=True, slots=True)
class ExitCode:
    """An exit code of commands, and what to do about it."""

    code: str
    meaning: str
    remedy: str


EXIT_CODES = (
    ExitCode("0", "it worked", "Failed rows do not change that: `--max-errors` and `--fail-under` do."),
    ExitCode("1", "a threshold was not met", "The message names the metric, its value and the threshold."),
    ExitCode(
        "2", "the command, the evaluation or the dataset needs a change", "The second line of the error says which."
    ),
    ExitCode("3", "the message broker cannot be reached or used", "Run `doteval doctor`, and look at the broker."),
    ExitCode("4", "the result store cannot be reached or used", "Run `doteval doctor`, and look at the database."),
    ExitCode(
        "5",
        "no worker process can start or do its work",
        "The error has the reason, such as a fixture that fails for all rows; `doteval status NAME` has more.",
    ),
    ExitCode(
        "6",
        "the budget of the experiment is used up",
        "Raise the budget, or pay into the account of the API, and run the same command again: done rows stay. "
        "The code is also that of a run which nobody agreed to after `--estimate`.",
    ),
    ExitCode("7", "nothing ran: every evaluation was skipped", "The reasons of the skips are in the output."),
    ExitCode(
        "70", "an error that doteval did not expect", "Run it again with `DOTEVAL_DEBUG=1`, and report the traceback."
    ),
    ExitCode("74", "the output cannot be written, as on a full disk", "Make room; what was stored stays."),
    ExitCode("129", "stopped by SIGHUP, as when its terminal was closed", "Run the same command again: it continues."),
    ExitCode("130", "interrupted with Ctrl-C", "Run the same command again: it continues."),
    ExitCode("141", "the reader of the output has closed it, as head does", "Nothing."),
    ExitCode("143", "stopped by SIGTERM", "Run the same command again: it continues."),
)


START = (
    ("doteval init evals", "write an evaluation that runs at once, without a key"),
    ("doteval submit eval_x.py --experiment first", "evaluate; nothing to set up"),
    ("doteval show first", "see what came out"),
    ("doteval COMMAND --help", "all options of a command"),
    ("doteval docs", "the documentation, page by page"),
)


class OutputClosedError(Exception):
    """The reader of the output has closed it, as `head` does. It is never shown."""


class Application(click.Group):
    """Finds commands by `GROUPS` and prints the overview."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [entry.name for entries in GROUPS.values() for entry in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"doteval.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    # click exits with 1 when the pipe is closed, in both steps; here 1 means that a threshold was not met.

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _closed_output():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_output():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        names = self.list_commands(ctx)
        if name not in names and not name.startswith("-"):
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(f"{_bold('doteval')} {__version__} evaluates models over datasets, on any number of workers.\n")
        formatter.write_paragraph()
        super().format_help(ctx, formatter)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        formatter.write_usage("doteval", "COMMAND [OPTIONS]", prefix="Usage: ")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in GROUPS.items():
            _write_section(formatter, title, [(entry.name, entry.help) for entry in entries])
        options = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        _write_section(formatter, "Options", [record for record in options if record])
        _write_section(formatter, "Start here", START)
        _write_section(formatter, "Exit codes", [(each.code, each.meaning) for each in EXIT_CODES])


@contextmanager
def _closed_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise OutputClosedError from None


def _write_section(formatter: click.HelpFormatter, title: str, lines: Sequence[tuple[str, str]]) -> None:
    # All sections share one column width, except the one with whole command lines.
    with formatter.section(_bold(title)):
        formatter.write_dl([(_cyan(f"{name:<13}"), text) for name, text in lines], col_max=44)


def _bold(text: str) -> str:
    return click.style(text, bold=True)


def _cyan(text: str) -> str:
    return click.style(text, fg="cyan")


@click.group(cls=Application, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="doteval %(version)s")
def application() -> None:
    pass
