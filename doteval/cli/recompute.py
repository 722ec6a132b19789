"""`doteval recompute`: compute the stored metrics anew."""

from __future__ import annotations

from dataclasses import replace

import click

from doteval.cli.options import ReducerParam, evaluation_option, existing_store, storage_option
from doteval.core.reducer_names import REDUCERS


@click.command("recompute")
@click.argument("name")
@evaluation_option
@click.option(
    "--reducer",
    type=ReducerParam(),
    metavar="NAME",
    help=f"From now on, reduce the samples of a row to one score: {REDUCERS}.",
)
@storage_option
def command(name: str, evaluation: str | None, reducer: str | None, storage: str | None) -> None:
    """Compute the metrics of the experiment NAME anew from the stored scores, and store them.

    No row runs and no model is called. Use it after you have changed a metric, or where a metric has no value
    because only the evaluation file knows it: the file is then loaded.

    \b
    doteval recompute nightly --reducer mode
    """
    from doteval.cli import terminal
    from doteval.cli.show import print_evaluation, read_figures
    from doteval.submission.recompute import recompute

    console = terminal.console()
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment, evaluation)
        if reducer is not None:
            for each in evaluations:
                store.evaluations.reconfigure(each.id, lambda config: replace(config, reducer=reducer))
            evaluations = store.evaluations.of(experiment, evaluation)
        done = recompute(store, evaluations)
        for each in done:
            print_evaluation(console, each, read_figures(store, each))
        for each in evaluations:
            if each not in done:
                console.print(f"{each.spec.nodeid} is running; its metrics are stored when it has ended")
