"""`doteval cancel`: stop an experiment."""

from __future__ import annotations

import shlex

import click

from doteval.cli.options import EXPERIMENT_NAME, evaluation_option, existing_store, storage_option
from doteval.cli.streams import say
from doteval.core.wording import counted


@click.command("cancel")
@click.argument("name", type=EXPERIMENT_NAME)
@evaluation_option
@click.option("--reason", metavar="TEXT", help="Reason that `doteval show` and `doteval status` show.")
@storage_option
def command(name: str, evaluation: str | None, reason: str | None, storage: str | None) -> None:
    """Cancel the running evaluations of the experiment NAME.

    Within two seconds, worker processes begin no further rows of it. Rows in flight finish and are stored.
    Batches of its calls are cancelled at the provider.
    The same `doteval submit` continues it later, and so does `doteval retry NAME`.
    """
    from doteval.core.experiments import Ending, EvaluationStatus
    from doteval.core.states import EvaluationEnd

    with existing_store(storage) as store:
        found = store.evaluations.of(store.experiments.find(name), evaluation)
        ending = Ending(
            EvaluationStatus.CANCELLED, EvaluationEnd.CANCELLED_BY_USER, reason or "cancelled with doteval cancel"
        )
        cancelled = [
            each for each in found if store.evaluations.end(each.id, ending, only_from=EvaluationStatus.RUNNING)
        ]
        if not cancelled:
            say("Nothing was running")
            return
        pending = sum(store.evaluations.counts(each.id).pending for each in cancelled)
        what = counted(len(cancelled), "evaluation")
        left = counted(pending, "row")
        say(f"Cancelled {what}; {left} pending. To continue: doteval retry {shlex.quote(name)}, or submit it again")
        batches = store.batches.cancel([each.id for each in cancelled], "ended")
        if batches and store.workers.live():
            say(f"Its worker processes cancel {counted(batches, 'batch')} at the provider; replies until then are kept")
        elif batches:
            say(
                f"No worker process is there to cancel {counted(batches, 'batch')} at the provider: cancel them in its "
                "console. Replies are kept if the experiment is continued"
            )
