"""Concurrency strategies as windows: which calls they admit, on a clock that the tests move."""

from __future__ import annotations

import pytest

from doteval.concurrency import Adaptive, AsyncSequential, Batch, Sequential, SlidingWindow, as_strategy
from doteval.errors import UsageError
from doteval.runner.concurrency_windows import AdaptiveRowWindow, FixedWindow, GroupWindow, window_for
from tests.support.clock import Clock


def work(
    window: AdaptiveRowWindow, clock: Clock, *, seconds: float, most_at_once: int, failing: float = 0.0
) -> list[int]:
    """Run a window against a server that serves `most_at_once` calls at once, each in 0.1 s. Returns its sizes."""
    sizes = []
    until = clock.now + seconds
    count = 0
    while clock.now < until:
        # More calls than the server serves make all of them wait longer.
        clock.now += 0.1 * max(1.0, window.size / most_at_once) / window.size
        count += 1
        window.ended(infrastructure_failed=failing > 0 and count % round(1 / failing) == 0)
        sizes.append(window.size)
    return sizes


def test_adaptive_grows_while_that_makes_it_faster() -> None:
    clock = Clock()
    window = AdaptiveRowWindow(Adaptive(adaptation_interval=1.0), clock=clock)
    sizes = work(window, clock, seconds=60, most_at_once=32)
    assert sizes[0] == 5
    assert window.size >= 32
    # It tries a little more now and then, but does not go on to its maximum.
    assert work(window, clock, seconds=20, most_at_once=10_000)[-1] == 100


def test_infrastructure_failures_halve_adaptive_once_an_interval() -> None:
    clock = Clock()
    window = AdaptiveRowWindow(Adaptive(initial_concurrency=40, adaptation_interval=1.0), clock=clock)
    sizes = work(window, clock, seconds=3.5, most_at_once=1000, failing=0.2)
    assert sorted(set(sizes), reverse=True) == [40, 20, 10, 5]
    assert work(window, clock, seconds=20, most_at_once=1000, failing=0.2)[-1] == 1
    assert work(window, clock, seconds=120, most_at_once=20)[-1] > 5


def test_adaptive_stays_within_its_bounds() -> None:
    clock = Clock()
    strategy = Adaptive(initial_concurrency=4, min_concurrency=3, max_concurrency=8, adaptation_interval=0.5)
    window = AdaptiveRowWindow(strategy, clock=clock)
    assert max(work(window, clock, seconds=30, most_at_once=1000)) == 8
    assert min(work(window, clock, seconds=30, most_at_once=1000, failing=0.5)) == 3
    assert window.admits(2)
    assert not window.admits(window.size)


def test_a_group_begins_when_the_one_before_has_ended() -> None:
    window = GroupWindow(3)
    for in_flight in range(3):
        assert window.admits(in_flight)
        window.begun()
    assert not window.admits(3)
    assert not window.admits(1)
    assert window.admits(0)


@pytest.mark.parametrize(
    ("own", "from_command", "is_async", "kind", "size"),
    [
        (None, None, True, FixedWindow, 10),
        (None, None, False, FixedWindow, 1),
        (None, 7, True, FixedWindow, 7),
        (None, 7, False, FixedWindow, 7),
        (None, Adaptive(), True, AdaptiveRowWindow, 5),
        (None, Adaptive(), False, FixedWindow, 1),
        (3, 7, True, FixedWindow, 3),
        (SlidingWindow(4), 7, False, FixedWindow, 4),
        (Sequential(), 7, True, FixedWindow, 1),
        (AsyncSequential(), 7, True, FixedWindow, 1),
        (Batch(6), 7, True, GroupWindow, 6),
        (Batch(6), 7, False, FixedWindow, 1),
        (Adaptive(), 7, False, AdaptiveRowWindow, 5),
    ],
)
def test_the_decorator_overrides_the_command(
    own: object, from_command: int | Adaptive | None, is_async: bool, kind: type, size: int
) -> None:
    window = window_for(own, from_command, is_async=is_async)
    assert type(window) is kind
    assert window.size == size


@pytest.mark.parametrize("given", ["10", 1.5, True, object(), SlidingWindow])
def test_a_value_that_is_not_a_strategy_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match="not a concurrency strategy"):
        as_strategy(given)


def test_contradictory_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="max_concurrency must be at least 1, not 0"):
        as_strategy(0)
    with pytest.raises(UsageError, match="batch_size must be at least 1"):
        Batch(0)
    with pytest.raises(UsageError, match="initial_concurrency is 5"):
        Adaptive(max_concurrency=4)
    with pytest.raises(UsageError, match="error_backoff_factor"):
        Adaptive(error_backoff_factor=1.0)
