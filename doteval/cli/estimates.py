"""The options of `doteval submit --estimate`, what it prints, and how it asks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from doteval.analysis.figures import count, money
from doteval.cli.options import grouped_options
from doteval.cli.streams import say_aside
from doteval.core.redaction import hide_secrets
from doteval.core.tables import Table
from doteval.core.wording import counted, duration

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.estimate import Projection, UsageEstimate
    from doteval.cli.ci_reports import CiReports
    from doteval.cli.documents import Document
    from doteval.cli.progress import ProgressDisplay
    from doteval.cli.thresholds import Thresholds
    from doteval.core.experiments import Experiment
    from doteval.errors import DotEvalError

_ROWS = 50
_ARGUMENTS = "doteval.arguments"
# What says that an estimate is wanted, and what becomes of it.
_OF_ESTIMATES = frozenset({"--estimate", "--estimate-only", "--yes", "-y", "--json"})
# Each row of a sample is a message, and a queue holds so many.
_MOST_ROWS = 5_000


class EstimatingCommand(click.Command):
    """A command whose ``--estimate`` may stand without its number, also before a path. It knows its arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        args = list(_with_number(args))
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)


def same_command(experiment: str, *, estimate: bool) -> str:
    """The running command, to be run again for its experiment, which may have got its name only now.

    Passwords are hidden. estimate: whether it estimates again.
    """
    return shlex.join(
        ["doteval", "submit", *_again(click.get_current_context().meta[_ARGUMENTS], experiment, estimate)]
    )


def _again(args: Sequence[str], experiment: str, estimate: bool) -> list[str]:
    """Arguments with the name of the experiment, and without those of estimates if none is wanted.

    >>> _again(["--estimate", "9", "a.py", "--experiment", "x", "--epochs", "3", "--yes"], "y", False)
    ['a.py', '--experiment', 'y', '--epochs', '3']
    >>> _again(["--estimate=9", "a.py"], "x", True)
    ['--experiment', 'x', '--estimate=9', 'a.py']
    """
    kept: list[str] = []
    named = False
    following = iter(hide_secrets(args))
    for arg in following:
        option, has_value, _ = arg.partition("=")
        if option in ("--experiment", "--estimate") and not has_value:
            value = next(following, "")
        if option == "--experiment":
            kept += [option, experiment]
            named = True
        elif option not in _OF_ESTIMATES:
            kept.append(arg)
        elif estimate:
            kept += [arg, value] if arg == "--estimate" else [arg]
    return kept if named else ["--experiment", experiment, *kept]


def _with_number(args: Sequence[str]) -> Sequence[str]:
    """Arguments with the number of ``--estimate`` where it has none.

    >>> _with_number(["--estimate", "eval_x.py"]), _with_number(["--estimate", "20", "eval_x.py"])
    (['--estimate=50', 'eval_x.py'], ['--estimate', '20', 'eval_x.py'])
    """
    following = [*args[1:], ""]
    return [
        f"--estimate={_ROWS}" if arg == "--estimate" and not next_one.lstrip("+-").isdecimal() else arg
        for arg, next_one in zip(args, following, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class EstimateChoice:
    """What the options say of an estimate.

    estimate: how many rows of each evaluation run first, None for no estimate.
    """

    estimate: int | None
    estimate_only: bool
    yes: bool
    as_json: bool

    @property
    def rows(self) -> int | None:
        """How many rows of each evaluation run first, None for no estimate."""
        return self.estimate or (_ROWS if self.estimate_only else None)

    def check(self, thresholds: Thresholds, reports: CiReports) -> None:
        """Raise click.UsageError: the options do not fit together."""
        if self.estimate_only and self.yes:
            raise click.UsageError(
                "--yes goes on after the estimate, and --estimate-only stops. Leave one of them out."
            )
        if self.estimate_only and (thresholds or reports):
            raise click.UsageError(
                "With --estimate-only there are only the figures of a few rows. Leave thresholds and reports out."
            )
        if self.as_json and not self.estimate_only:
            raise click.UsageError("--json writes an estimate, and needs --estimate-only.")
        if self.yes and self.rows is None:
            raise click.UsageError("--yes answers the question after an estimate, and needs --estimate.")

    def agrees(self, experiment: Experiment, found: UsageEstimate, display: ProgressDisplay, console: Console) -> bool:
        """Show an estimate. Returns whether the other rows are to run, which it asks the user if there are some."""
        with display.paused():
            if self.as_json:
                from doteval.cli import documents

                documents.write({"experiment": documents.experiment(experiment)} | document(found))
            elif found.rows and not found.rows_left:
                console.print(f"Nothing is left to estimate: all rows have run, {counted(found.rows, 'row')} now")
            elif found.rows:
                print_estimate(console, found)
            if not found.rows_left or self.yes:
                return True
            return not self.estimate_only and _agreed(f"Run the other {counted(found.rows_left, 'row')}?")


estimate_options = grouped_options(
    "choice",
    EstimateChoice,
    (
        click.option(
            "--estimate",
            type=click.IntRange(min=2, max=_MOST_ROWS),
            metavar="[N]",
            help=f"Run N rows ({_ROWS} without N) of each evaluation, drawn at random, say what the rest will take, "
            "and ask before it runs.",
        ),
        click.option(
            "--estimate-only",
            is_flag=True,
            help="The same, and stop there. The rows that have run stay in the experiment.",
        ),
        click.option("--yes", "-y", is_flag=True, help="With --estimate: do not ask, and run the rest."),
        click.option("--json", "as_json", is_flag=True, help="With --estimate-only: write the estimate as JSON."),
    ),
)
"""Adds the options of estimates to a command, which gets `EstimateChoice`."""


def _agreed(question: str) -> bool:
    try:
        return click.confirm(question, default=False, err=True)
    except click.Abort as abort:
        # Of Ctrl-C and of signals, which end the command as they do elsewhere.
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise abort.__context__ from None
        say_aside("")
        return False


def refused(experiment: Experiment, how_to_go_on: str) -> DotEvalError:
    """The error of a command that has run only the rows of an estimate, since nobody has agreed to the others."""
    from doteval.errors import BudgetError

    nobody = "" if sys.stdin.isatty() else ": standard input ended without an answer"
    return BudgetError(
        f"experiment {experiment.name!r}: only the rows of the estimate have run{nobody}",
        remedy=f"To run the others: {how_to_go_on}\nWith --estimate, --yes runs them without asking.",
    )


def document(found: UsageEstimate) -> Document:
    """The JSON document of an estimate."""
    return {
        "rows": found.rows,
        "rows_left": found.rows_left,
        "failed": found.failed,
        "rows_at_once": found.at_once,
        "unpriced_models": list(found.unpriced),
        "exceeds_budget": found.exceeds_budget,
        "amounts": {str(amount): _projection(each) for amount, each in found.amounts.items()},
    }


def _projection(found: Projection) -> Document:
    interval = found.interval
    return {
        "sampled": found.sampled,
        "rest": found.rest,
        "rest_interval": None if interval is None else list(interval),
        "interval_method": None if interval is None else interval.method,
    }


def print_estimate(console: Console, found: UsageEstimate) -> None:
    """Print an estimate as a table, and what has to be known to read it."""
    from doteval.analysis.estimate import Amount
    from doteval.cli import terminal

    console.print()
    console.print(
        f"Estimate from {counted(found.rows, 'row')} drawn at random, for the other {counted(found.rows_left, 'row')}"
    )
    asks = found.amounts[Amount.REQUESTS].sampled > 0
    if asks:
        terminal.print_table(console, _table(found))
    time = found.amounts.get(Amount.SECONDS)
    if time is None:
        console.print("Time: batches take as long as the provider needs, within a day as a rule")
    else:
        between = "" if time.interval is None else f" ({duration(time.interval.low)} to {duration(time.interval.high)})"
        waits = ", if no rate limit makes them wait longer; with --batch within a day, as a rule" if asks else ""
        at_once = counted(found.at_once, "row")
        console.print(f"Time for the rest: {duration(time.rest)}{between}, with {at_once} at a time{waits}")
    for line in _notes(found):
        console.print(line, style="yellow")


def _table(found: UsageEstimate) -> Table:
    from doteval.analysis.estimate import Amount

    table = Table("", "these rows", "the rest", "95% interval")
    lines: tuple[tuple[Amount, str, Callable[[float], str]], ...] = (
        (Amount.REQUESTS, "requests", _whole),
        (Amount.PROMPT_TOKENS, "tokens in", _whole),
        (Amount.COMPLETION_TOKENS, "tokens out", _whole),
        (Amount.COST, "cost", money),
        (Amount.BATCH_COST, "cost with --batch", money),
    )
    for amount, name, written in lines:
        each = found.amounts.get(amount)
        if each is not None:
            # These rows have not run in batches.
            so_far = "-" if amount is Amount.BATCH_COST else written(each.sampled)
            between = each.interval and f"{written(each.interval.low)} – {written(each.interval.high)}"
            table.add_row(name, so_far, written(each.rest), between or "-")
    return table


def _notes(found: UsageEstimate) -> list[str]:
    lines = []
    if found.failed:
        lines.append(
            f"{counted(found.failed, 'row')} of these failed, and may have used less than a row that does not."
        )
    if found.unpriced:
        lines.append(
            f"No price is known for {', '.join(found.unpriced)}: tokens only. Name a price table with the setting "
            "`prices`."
        )
    if found.exceeds_budget:
        lines.append("The budget is likely to be used up before the last row.")
    return lines


def _whole(number: float) -> str:
    return count(round(number))
