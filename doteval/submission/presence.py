"""Tells others that a command is submitting or following evaluations, and ends what it leaves to nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from doteval.coordination.claims import nobody_runs
from doteval.coordination.endings import end_running
from doteval.coordination.heartbeat import Heartbeat
from doteval.coordination.publish_cursor import is_held_back
from doteval.coordination.registration import Registration
from doteval.core.experiments import Evaluation
from doteval.core.liveness import BEAT_SECONDS
from doteval.core.states import WorkerPhase
from doteval.errors import StoreError
from doteval.pytest_runtime.outcomes import ending_of
from doteval.store import HeldRange, Store, WorkerInfo


class Presence:
    """The presence of a submitting command in the store, with a heartbeat, so that others can tell when it is gone."""

    def __init__(self, store: Store, service: str) -> None:
        info = WorkerInfo.of_this_process(service, concurrency=0)
        self._registration = Registration(store, info, state=WorkerPhase.SUBMITTING)
        self._followed: list[HeldRange] = []
        self._heartbeat = Heartbeat([(BEAT_SECONDS, self._beat)])
        self._heartbeat.start()

    def follow(self, evaluations: Sequence[Evaluation]) -> None:
        """Say that this command follows these evaluations from now on."""
        self._followed = [HeldRange.whole(each.uid) for each in evaluations]
        self._beat()

    def end(self) -> None:
        """Say that the command follows nothing any more."""
        self._heartbeat.stop()
        self._registration.end(reason="left")

    def _beat(self) -> None:
        self._registration.beat(state=WorkerPhase.SUBMITTING, holding=self._followed)


@contextlib.contextmanager
def presence(store: Store, service: str, evaluations: Sequence[Evaluation]) -> Iterator[Presence]:
    """Be present in the store during the block. If the block is interrupted, end the `evaluations` that nobody runs.

    Worker processes of a shared broker go on with evaluations whose rows are all in the store. `evaluations` is read
    at the end of the block.
    """
    present = Presence(store, service)
    try:
        yield present
    except BaseException as error:
        # The store may be what failed. Others then see by the missing heartbeat that nobody runs the evaluations.
        with contextlib.suppress(StoreError):
            present.end()
            for each in evaluations:
                # Rows that are held back have only this command to release them.
                is_left = is_held_back(store.evaluations.published(each.id))
                if is_left or nobody_runs(store, store.evaluations.by_uid(each.uid)):
                    end_running(store, each, ending_of(None, error))
        raise
    present.end()
