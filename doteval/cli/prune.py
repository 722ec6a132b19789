"""`doteval prune`: delete old experiments."""

from __future__ import annotations

import click

from doteval.cli.confirmation import confirmed
from doteval.cli.options import existing_store, json_option, storage_option
from doteval.cli.streams import say, say_aside
from doteval.core.times import parse_age
from doteval.core.wording import counted, plain

_SHOWN = 20


@click.command("prune")
@click.option(
    "--older-than", metavar="AGE", help="Only those where nothing has happened for so long, as in 30d or 12h."
)
@click.option("--unnamed", is_flag=True, help="Only those that were given no name with --experiment.")
@click.option(
    "--journals", is_flag=True, help="Drop only their model calls (requests and replies); keep everything else."
)
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@storage_option
@json_option
def command(
    older_than: str | None,
    unnamed: bool,
    journals: bool,
    dry_run: bool,
    yes: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Delete old experiments and all their results, or with --journals only their model calls.

    Experiments that somebody runs are kept, and so are the baseline and those with a tag. With --journals, only
    those that somebody runs keep their model calls.

    \b
    doteval prune --older-than 30d --unnamed --dry-run
    doteval prune --older-than 12w --yes
    doteval prune --journals --older-than 7d
    """
    from doteval.submission.prune import delete_all, find_prunable

    if journals:
        _drop_journals(older_than, storage, unnamed=unnamed, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if older_than is None and not unnamed:
        raise click.UsageError("Say which experiments: --older-than 30d, --unnamed, or both.")
    seconds = None if older_than is None else parse_age(older_than)
    with existing_store(storage) as store:
        found = find_prunable(store, older_than=seconds, unnamed=unnamed)
        names = [line.experiment.name for line in found.experiments]
        what = f"{counted(len(names), 'experiment')} with "
        what += counted(sum(line.counts.finished for line in found.experiments), "result")
        if not as_json:
            for line in found.experiments[:_SHOWN]:
                say(f"{line.experiment.name}  {line.active_at.astimezone():%Y-%m-%d %H:%M}  {line.counts.finished:,}")
            if len(names) > _SHOWN:
                say(f"... and {len(names) - _SHOWN:,} more")
            if found.tagged:
                say_aside(f"{counted(found.tagged, 'experiment')} with a tag kept")
            if found.baseline is not None:
                say_aside(f"The baseline {found.baseline!r} kept")
            if found.running:
                say_aside(f"{counted(found.running, 'experiment')} that somebody runs kept")
        deleted: list[str] = []
        if names and not dry_run:
            if yes or confirmed(plain(f"Delete {what} from {store.url}?")):
                deleted = delete_all(store, found)
            else:
                say_aside("Nothing was deleted")
                return
        if as_json:
            from doteval.cli import documents

            kept = {
                "kept_running": found.running,
                "kept_tagged": found.tagged,
                "kept_baseline": found.baseline,
            }
            documents.write({"storage": store.url, "found": names, "deleted": deleted, **kept})
        elif dry_run:
            say(f"Would delete {what}")
        elif not names:
            say("No experiment is as old" if unnamed is False else "No such experiment")
        else:
            left = len(names) - len(deleted)
            kept_now = f"; {left} kept, since they run again or are the baseline now" if left else ""
            say(f"Deleted {counted(len(deleted), 'experiment')}{kept_now}")


def _drop_journals(
    older_than: str | None, storage: str | None, *, unnamed: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    from doteval.submission.prune import drop_journals, find_prunable

    seconds = None if older_than is None else parse_age(older_than)
    with existing_store(storage) as store:
        found = find_prunable(store, older_than=seconds, unnamed=unnamed, labelled=True)
        ids = [each.id for line in found.experiments for each in store.evaluations.of(line.experiment)]
        calls = store.calls.count(ids)
        what = f"{counted(calls, 'call')} of {counted(len(found.experiments), 'experiment')}"
        dropped = 0
        if found.running and not as_json:
            say_aside(f"{counted(found.running, 'experiment')} that somebody runs kept")
        if calls and not dry_run:
            if not yes and not confirmed(plain(f"Drop the journal with {what} from {store.url}?")):
                say_aside("Nothing was dropped")
                return
            dropped = drop_journals(store, found)
        if as_json:
            from doteval.cli import documents

            facts = {"calls": calls, "dropped": dropped, "kept_running": found.running}
            names = [line.experiment.name for line in found.experiments]
            documents.write({"storage": store.url, "found": names, **facts})
        elif dry_run:
            say(f"Would drop {what}")
        else:
            say(f"Dropped {counted(dropped, 'call')}" if calls else "There are no calls to drop")
