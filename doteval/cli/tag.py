"""`doteval tag`: tags and a note for an experiment."""

from __future__ import annotations

import click

from doteval.cli.options import EXPERIMENT_NAME, existing_store, json_option, storage_option
from doteval.cli.streams import say


# Without -h, and with options that it does not know as arguments: a tag is removed with -TAG.
@click.command("tag", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("name", type=EXPERIMENT_NAME)
@click.argument("changes", nargs=-1, type=click.UNPROCESSED, metavar="[+TAG] [-TAG]...")
@click.option("--note", metavar="TEXT", help="A note, which replaces the one before; an empty one removes it.")
@storage_option
@json_option
def command(name: str, changes: tuple[str, ...], note: str | None, storage: str | None, as_json: bool) -> None:
    """Give the experiment NAME tags, take tags away, and write a note on it; then show them.

    \b
    doteval tag first +paper -draft
    doteval tag first --note "prompt of the paper"
    """
    removed = [each[1:] for each in changes if each.startswith("-")]
    added = [each.removeprefix("+") for each in changes if not each.startswith("-")]
    unknown = [each for each in changes if each.startswith("--")]
    if unknown:
        raise click.UsageError(f"No such option: {unknown[0]}")
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        store.labels.change(experiment, add=added, remove=removed, note=note)
        labels = store.labels.of(experiment)
        if as_json:
            from doteval.cli import documents

            documents.write({**documents.experiment(experiment), **documents.labels(labels)})
            return
    say(f"{name}: {', '.join(labels.tags) or 'no tags'}")
    if labels.note:
        say(labels.note)
