"""`copy_store` copies a result store into another database, unless somebody runs one of its experiments."""

from __future__ import annotations

from collections.abc import Callable

from doteval.core.wording import counted, listed
from doteval.errors import UsageError
from doteval.store import CopiedStore, CopyProgress, Store
from doteval.submission.prune import is_run


def copy_store(
    store: Store, target: str, on_progress: Callable[[CopyProgress], None], *, running: bool = False
) -> tuple[CopiedStore, tuple[str, ...]]:
    """Copy a store into the empty or missing one at the URL `target`.

    running: copy also while somebody runs experiments.

    Returns the copy, and the names of experiments that are running by now: it lacks what they have stored since.

    Raises UsageError: somebody runs an experiment of the store, or the target holds something.
    Raises StoreError: one of the two cannot be used.
    """
    names = () if running else _running(store)
    if names:
        raise UsageError(
            f"{counted(len(names), 'experiment is', 'experiments are')} running in {store.url}, and the copy would "
            f"lack what is stored from now on: {listed(names)}",
            remedy=f"Wait for the end (doteval watch {names[0]}), stop it (doteval cancel {names[0]}), or add "
            "--running for a copy of what is stored now.",
        )
    return store.copy_into(target, on_progress), _running(store)


def _running(store: Store) -> tuple[str, ...]:
    return tuple(line.experiment.name for line in store.experiments.overviews() if is_run(store, line))
