"""Stores the replies of batches that have ended, and settles each call that has none."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from doteval.coordination.batches.limits import GroupLimits
from doteval.coordination.batches.provider import (
    BatchProvider,
    LineReply,
    ProviderError,
    ProviderState,
    UnreadableRepliesError,
)
from doteval.coordination.batches.replies import ReplyReader
from doteval.core.batches import AfterDeadline, BatchStatus, ProviderBatch
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.wording import counted, duration
from doteval.store import BatchReply, Store

AT_DEADLINE = "deadline"
"""Why a batch is cancelled that has taken longer than `--batch-deadline`."""

# Replies that are stored in one transaction.
_REPLIES_AT_ONCE = 500
# How often files are read that hold something else than replies, as long as a proxy on the way is mended.
_MOST_READS = 5
# The provider has deleted a file.
_GONE = frozenset({404, 410})

logger = logging.getLogger("doteval.worker")


class RowPublisher(Protocol):
    """Publishes rows that may run again. `doteval.coordination.dispatcher.Dispatcher` does."""

    def publish_rows(self, evaluation: Evaluation, indexes: Iterable[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class BatchShare:
    """What this process does now: the batches of one evaluation and client.

    is_held: whether this process still has the lease of them.
    """

    evaluation: Evaluation
    client: str
    base_url: str
    provider: BatchProvider
    reader: Callable[[str], ReplyReader]
    is_held: Callable[[], bool]

    @property
    def tries(self) -> int:
        """How many batches may end without a reply to a call."""
        return 1 + self.evaluation.config.max_retries


class Settlement:
    """Ends batches, so that each of their calls is answered, comes into another batch, or is given up.

    limits: learns from batches that are refused for their size.
    """

    def __init__(self, store: Store, publisher: RowPublisher, own_id: Callable[[], int], limits: GroupLimits) -> None:
        self._store = store
        self._publisher = publisher
        self._own_id = own_id
        self._limits = limits
        # By batch: how often its replies could not be read.
        self._reads: Counter[int] = Counter()

    def end(self, share: BatchShare, batch: ProviderBatch, state: ProviderState) -> None:
        """Store the replies of a batch that has ended, and settle each of its other calls."""
        tries = self._store.wanted.unanswered(batch.id)
        lost = ""
        refused = state.status is BatchStatus.FAILED and self._limits.refused(share.client, batch, state.code)
        if refused:
            # Not the fault of its requests.
            self._store.wanted.release(tries, state.message, counts=False)
            logger.warning("batch %d: %s", batch.id, state.message)
            tries = {}
        elif state.files or state.answered:
            lost = self._read(share, batch, state, tries)
        why = (
            state.message
            or lost
            or {
                BatchStatus.EXPIRED: "its batch expired before it was answered",
                BatchStatus.CANCELLED: "its batch was cancelled",
            }.get(state.status, "its batch has ended without a reply to it")
        )
        # Those that were never sent, or are in no file.
        counts = state.status is not BatchStatus.CANCELLED
        self._again(share, batch, {wanted_id: (count, why) for wanted_id, count in tries.items()}, counts=counts)
        self._store.batches.record(batch.id, status=state.status.value, ended=True, error=state.message or None)
        if not refused:
            self._limits.ended(share.client, batch)

    def _read(self, share: BatchShare, batch: ProviderBatch, state: ProviderState, tries: dict[int, int]) -> str:
        """Settle the calls that the files of a batch name. Returns why others have no reply, if that is known.

        Raises ProviderError: the files cannot be read now. What was read is stored.
        """
        reader = share.reader(batch.model)
        chunk: list[LineReply] = []
        error: ProviderError | None = None
        try:
            for line in share.provider.replies(state):
                if line.wanted_id in tries:
                    chunk.append(line)
                if len(chunk) >= _REPLIES_AT_ONCE:
                    self._take(share, batch, reader, chunk, tries)
                    chunk = []
        except ProviderError as raised:
            error = raised
        self._take(share, batch, reader, chunk, tries)
        if error is None:
            return ""
        if isinstance(error, UnreadableRepliesError):
            self._reads[batch.id] += 1
            is_lost = self._reads[batch.id] >= _MOST_READS
        else:
            is_lost = error.status in _GONE
        if not is_lost:
            raise error
        logger.warning("batch %d: its replies are lost: %s", batch.id, error.message)
        return f"its reply is lost: {error.message}"

    def _take(
        self,
        share: BatchShare,
        batch: ProviderBatch,
        reader: ReplyReader,
        lines: Sequence[LineReply],
        tries: dict[int, int],
    ) -> None:
        """Store replies, and have those requests asked again that have failed for a moment. They leave `tries`."""
        replies: list[BatchReply] = []
        again: dict[int, tuple[int, str]] = {}
        cancelled = False
        for line in lines:
            count = tries.pop(line.wanted_id, None)
            if count is None:
                continue
            reply = reader.reply(line, batch.endpoint)
            if isinstance(reply, str):
                cancelled = cancelled or line.code == "batch_cancelled"
                again[line.wanted_id] = count, reply
            else:
                replies.append(reply)
        self._answer(share, batch, replies)
        self._again(share, batch, again, counts=not cancelled)

    def _answer(self, share: BatchShare, batch: ProviderBatch | None, replies: Sequence[BatchReply]) -> None:
        if not replies:
            return
        self._publish(share, self._store.wanted.answer(share.evaluation.id, replies, self._own_id()))
        cost = sum(each.usage.cost for each in replies if each.usage is not None and each.usage.cost is not None)
        if batch is not None and cost:
            self._store.batches.add_cost(batch.id, cost)

    def _again(
        self, share: BatchShare, batch: ProviderBatch, calls: dict[int, tuple[int, str]], *, counts: bool
    ) -> None:
        """Have calls come into another batch, unless they were in as many as they may be, or are overdue."""
        if not calls:
            return
        if batch.cancelled == AT_DEADLINE:
            self.give_up(share, list(calls))
            return
        over = [each for each, (count, _) in calls.items() if counts and count + 1 >= share.tries]
        reader = share.reader(batch.model)
        said = f"after {counted(share.tries, 'batch')}" if share.tries > 1 else "and --max-retries allows no other try"
        self._answer(
            share, batch, [reader.refusal(each, f"this request has no reply {said}: {calls[each][1]}") for each in over]
        )
        for why in dict.fromkeys(why for _, why in calls.values()):
            rest = [each for each, (_, reason) in calls.items() if reason == why and each not in set(over)]
            if rest:
                self._store.wanted.release(rest, why, counts=counts)

    def refuse_size(self, share: BatchShare, batch: ProviderBatch, error: ProviderError) -> bool:
        """Whether the provider refuses a batch for its size: its calls come into others, smaller or later ones."""
        if not self._limits.refused(share.client, batch, error.code):
            return False
        self._store.wanted.release(self._store.wanted.unanswered(batch.id), error.message, counts=False)
        self._store.batches.record(batch.id, status=BatchStatus.FAILED.value, ended=True, error=error.message)
        logger.warning("batch %d: %s", batch.id, error.message)
        return True

    def refuse_all(self, share: BatchShare, batch: ProviderBatch, error: ProviderError) -> None:
        """The provider refuses a batch for good: its requests are answered with what it says."""
        reader = share.reader(batch.model)
        ids = list(self._store.wanted.unanswered(batch.id))
        # Its own words where rows can tell what they mean, such as an account without credit.
        content = error.content if error.status == 429 else b""
        for first in range(0, len(ids), _REPLIES_AT_ONCE):
            part = ids[first : first + _REPLIES_AT_ONCE]
            self._answer(
                share,
                batch,
                [reader.refusal(each, error.message, status=error.status or 400, content=content) for each in part],
            )
        self._store.batches.record(batch.id, status=BatchStatus.FAILED.value, ended=True, error=error.message)
        logger.error("batch %d: %s", batch.id, error.message)

    def give_up(self, share: BatchShare, ids: Sequence[int]) -> None:
        """Do with overdue calls what `--then` says."""
        config = share.evaluation.config
        for first in range(0, len(ids), _REPLIES_AT_ONCE):
            part = ids[first : first + _REPLIES_AT_ONCE]
            if config.then is AfterDeadline.LIVE:
                self._publish(share, self._store.wanted.send_live(share.evaluation.id, part))
                continue
            said = f"no batch has answered this request within {duration(config.batch_deadline)} (--batch-deadline)"
            reader = share.reader("")
            self._answer(share, None, [reader.refusal(each, said) for each in part])

    def _publish(self, share: BatchShare, rows: Sequence[tuple[int, int]]) -> None:
        if rows and share.evaluation.status is EvaluationStatus.RUNNING:
            # If this process dies before, the dispatcher finds that nobody holds them.
            self._publisher.publish_rows(share.evaluation, {index for index, _ in rows})
