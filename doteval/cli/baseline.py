"""`doteval baseline`: the experiment that others are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from doteval.analysis import record_documents
from doteval.cli.options import EXPERIMENT_NAME, existing_store, json_option, storage_option
from doteval.cli.streams import say, say_aside
from doteval.core.wording import counted

if TYPE_CHECKING:
    from doteval.store import Store


@click.group("baseline")
def command() -> None:
    """Say which experiment others are compared with.

    A store has one baseline at most. Commands that compare take it for the word `baseline`:

    \b
    doteval baseline set nightly
    doteval compare new
    doteval submit evals --fail-if-worse baseline
    """


@command.command("set")
@click.argument("name", type=EXPERIMENT_NAME)
@storage_option
@json_option
def set_(name: str, storage: str | None, as_json: bool) -> None:
    """Make the experiment NAME the baseline, in place of the one before it.

    \b
    doteval baseline set nightly
    """
    from doteval.errors import NotFoundError

    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment)
        if not evaluations:
            raise NotFoundError(
                f"the experiment {name!r} has no evaluations to compare with", remedy="Run its evaluations first."
            )
        store.baseline.set(experiment)
        if as_json:
            _write(store)
            return
        say(f"{name!r} is the baseline of {store.url}")
        for each in evaluations:
            if each.status != "completed":
                say_aside(f"{each.spec.nodeid} is {each.status.value}: nothing passes a comparison with it so far")


@command.command("show")
@storage_option
@json_option
def show(storage: str | None, as_json: bool) -> None:
    """Show which experiment is the baseline.

    \b
    doteval baseline show --json
    """
    with existing_store(storage) as store:
        if as_json:
            _write(store)
            return
        found = store.baseline.find()
        if found is None:
            say(f"No experiment is the baseline of {store.url}. To set one: doteval baseline set NAME")
            return
        experiment, since = found
        evaluations = store.evaluations.of(experiment)
        completed = sum(each.status == "completed" for each in evaluations)
        what = f"{counted(len(evaluations), 'evaluation')}, {completed:,} completed"
        say(f"{experiment.name}  since {since.astimezone():%Y-%m-%d %H:%M}  {what}")


@command.command("clear")
@storage_option
@json_option
def clear(storage: str | None, as_json: bool) -> None:
    """Leave the store without a baseline. No experiment is deleted.

    \b
    doteval baseline clear
    """
    with existing_store(storage) as store:
        store.baseline.clear()
        if as_json:
            _write(store)
            return
        say(f"No experiment is the baseline of {store.url}")


def _write(store: Store) -> None:
    from doteval.cli import documents

    found = store.baseline.find()
    baseline = None
    if found is not None:
        baseline = {**documents.experiment(found[0]), "since": record_documents.moment(found[1])}
    documents.write({"storage": store.url, "baseline": baseline})
