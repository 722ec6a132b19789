"""`doteval delete`: remove an experiment."""

from __future__ import annotations

import click

from doteval.cli.confirmation import confirmed
from doteval.cli.options import EXPERIMENT_NAME, existing_store, storage_option
from doteval.cli.streams import say, say_aside
from doteval.core.wording import counted, plain


@click.command("delete")
@click.argument("name", type=EXPERIMENT_NAME)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@storage_option
def command(name: str, yes: bool, storage: str | None) -> None:
    """Delete the experiment NAME and all its results."""
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        store.experiments.check_deletable(experiment)
        evaluations = store.evaluations.of(experiment)
        finished = sum(evaluation.counts.finished for evaluation in evaluations)
        what = f"{counted(len(evaluations), 'evaluation')} with {counted(finished, 'result')}"
        if not yes and not confirmed(plain(f"Delete {name!r} from {store.url}: {what}?")):
            say_aside("Nothing was deleted")
            return
        store.experiments.delete(name)
    say(f"Deleted {name!r}: {what}")
