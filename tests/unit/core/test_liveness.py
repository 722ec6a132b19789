"""The limits by which processes count as late or dead agree with each other."""

from __future__ import annotations

import os

from doteval.core.liveness import (
    BEAT_SECONDS,
    DEAD_AFTER_SECONDS,
    DISPATCH_SECONDS,
    HELD_ROWS_FRESH_SECONDS,
    LATE_AFTER_SECONDS,
    LEASE_RENEW_SECONDS,
    LEASE_SECONDS,
    OBSERVATION_GAP_SECONDS,
    QUEUE_DRAINED_SECONDS,
    QUEUE_UNSERVED_SECONDS,
    is_orphaned,
)


def test_one_late_heartbeat_does_not_make_a_process_late() -> None:
    assert LATE_AFTER_SECONDS > 2 * BEAT_SECONDS
    assert HELD_ROWS_FRESH_SECONDS >= LATE_AFTER_SECONDS


def test_a_worker_has_reported_a_row_task_before_its_rows_can_count_as_lost() -> None:
    assert QUEUE_DRAINED_SECONDS > 2 * BEAT_SECONDS
    assert QUEUE_DRAINED_SECONDS >= HELD_ROWS_FRESH_SECONDS


def test_a_drained_queue_is_looked_at_often_enough_to_be_seen_as_such() -> None:
    assert DISPATCH_SECONDS < QUEUE_DRAINED_SECONDS
    assert 2 * DISPATCH_SECONDS < OBSERVATION_GAP_SECONDS


def test_a_process_is_dead_long_after_it_was_late() -> None:
    assert DEAD_AFTER_SECONDS >= 5 * HELD_ROWS_FRESH_SECONDS
    assert QUEUE_UNSERVED_SECONDS < DEAD_AFTER_SECONDS


def test_a_lease_outlives_failed_renewals_and_ends_before_its_holder_counts_as_dead() -> None:
    assert 3 * LEASE_RENEW_SECONDS < LEASE_SECONDS < DEAD_AFTER_SECONDS


def test_a_process_is_orphaned_when_its_parent_is_another() -> None:
    assert not is_orphaned(None)
    assert not is_orphaned(os.getppid())
    assert is_orphaned(os.getpid())
