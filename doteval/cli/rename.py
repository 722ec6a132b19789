"""`doteval rename`: give an experiment another name."""

from __future__ import annotations

import click

from doteval.cli.options import EXPERIMENT_NAME, existing_store, storage_option
from doteval.cli.streams import say


@click.command("rename")
@click.argument("name", type=EXPERIMENT_NAME)
@click.argument("new")
@storage_option
def command(name: str, new: str, storage: str | None) -> None:
    """Give the experiment NAME the name NEW."""
    with existing_store(storage) as store:
        experiment = store.experiments.rename(name, new)
        baseline = ", which stays the baseline" if store.labels.of(experiment).is_baseline else ""
    say(f"Renamed {name!r} to {new!r}{baseline}")
