"""`copy_store` copies a result store into another database, unless somebody runs one of its experiments."""

from __future__ import annotations

from collections.abc import Callable

from doteval.core.wording import counted, listed
from doteval.errors import UsageError
from doteval.store import CopiedStore, CopyProgress, Store
from doteval.submission.prune import is_run


def copy_store(
    store: Store, target: str, on_progress: Callable[[CopyProgress], None]
) -> tuple[CopiedStore, tuple[str, ...]]:
    """Copy a store into the empty or missing one at the URL `target`.

    Returns the copy, and the names of experiments that have begun to run meanwhile: it lacks what they store.

    Raises UsageError: somebody runs an experiment of the store, or the target holds something.
    Raises StoreError: one of the two cannot be used.
    """
    running = _running(store)
    if running:
        raise UsageError(
            f"{counted(len(running), 'experiment is', 'experiments are')} running in {store.url}, and the copy would "
            f"lack what is stored from now on: {listed(running)}",
            remedy=f"Wait for the end (doteval watch {running[0]}), or stop it (doteval cancel {running[0]}).",
        )
    return store.copy_into(target, on_progress), _running(store)


def _running(store: Store) -> tuple[str, ...]:
    return tuple(line.experiment.name for line in store.experiments.overviews() if is_run(store, line))
