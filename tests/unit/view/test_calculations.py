"""What is computed in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from doteval.errors import UsageError
from doteval.store import Store
from doteval.view.calculations import Calculations
from doteval.view.time_shares import TimeShare
from tests.support.project import wait_until


@pytest.fixture
def calculations(tmp_path: Path) -> Iterator[Calculations]:
    with Store.open(str(tmp_path / "results.db")) as store, contextlib.closing(Calculations(store)) as found:
        yield found


def test_a_value_is_computed_once_for_all(calculations: Calculations) -> None:
    begun: list[Store] = []
    go_on = threading.Event()

    def compute(store: Store) -> str:
        begun.append(store)
        assert go_on.wait(60)
        return "done"

    assert calculations.get("subject", "state", compute) is None
    assert calculations.get("subject", "state", compute) is None
    go_on.set()
    assert wait_until(lambda: calculations.get("subject", "state", compute)) == "done"
    assert len(begun) == 1


def test_another_state_is_computed_anew(calculations: Calculations) -> None:
    for state in (1, 2):
        found = wait_until(
            lambda state=state: calculations.get("subject", state, lambda _, state=state: state), seconds=60
        )
        assert found == state


def test_what_is_running_shows_the_earlier_state_while_another_one_is_computed(
    calculations: Calculations,
) -> None:
    # Every state is computed at once, however long the one before took.
    calculations._share = TimeShare(float("inf"))
    begun, go_on = threading.Event(), threading.Event()

    def second(_: Store) -> int:
        begun.set()
        assert go_on.wait(60)
        return 2

    assert wait_until(lambda: calculations.get("subject", 1, lambda _: 1, running=True)) == 1
    assert calculations.get("subject", 2, second, running=True) == 1
    assert begun.wait(60)
    assert calculations.get("subject", 2, second, running=True) == 1
    go_on.set()
    wait_until(lambda: calculations.get("subject", 2, second, running=True) == 2)


def test_what_is_running_is_computed_in_a_share_of_the_time(calculations: Calculations) -> None:
    calculations._share = TimeShare(1e-9)
    assert wait_until(lambda: calculations.get("subject", 1, lambda _: "early", running=True)) == "early"
    for state in range(2, 9):
        assert calculations.get("subject", state, lambda _: "late", running=True) == "early"
    # What has ended is never shown in an earlier state.
    assert wait_until(lambda: calculations.get("subject", 9, lambda _: "ended")) == "ended"


def test_an_error_is_raised_and_tried_again_after_a_while(
    calculations: Calculations, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[str] = []

    def fail(_: Store) -> str:
        outcomes.append("failed")
        raise UsageError("no such column")

    def raised() -> bool:
        try:
            calculations.get("subject", "state", fail)
        except UsageError:
            return True
        return False

    assert wait_until(raised)
    assert raised()
    assert outcomes == ["failed"]
    monkeypatch.setattr("doteval.view.calculations._RETRY_SECONDS", 0.0)
    assert wait_until(lambda: calculations.get("subject", "state", lambda _: "well")) == "well"


def test_what_was_read_a_moment_ago_is_shared(calculations: Calculations) -> None:
    read: list[int] = []
    for _ in range(3):
        calculations.recent("key", lambda: read.append(1))
    assert len(read) == 1


def test_what_has_become_old_is_shown_while_it_is_read_again(
    calculations: Calculations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doteval.view.calculations._LEAST_SECONDS", 0.0)
    monkeypatch.setattr("doteval.view.calculations._SHARE", 0)
    values = iter(range(1_000_000))
    go_on = threading.Event()

    def read() -> int:
        value = next(values)
        assert value == 0 or go_on.wait(60)
        return value

    assert [calculations.recent("key", read) for _ in range(3)] == [0, 0, 0]
    go_on.set()
    wait_until(lambda: calculations.recent("key", read) > 0)


def test_a_value_that_is_too_old_is_not_shown(calculations: Calculations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doteval.view.calculations._OLDEST_SECONDS", 0.0)
    values = iter((1, 2))
    assert [calculations.recent("key", lambda: next(values)) for _ in range(2)] == [1, 2]


def test_an_error_of_reading_is_not_kept(calculations: Calculations) -> None:
    def fail() -> str:
        raise UsageError("no")

    with pytest.raises(UsageError):
        calculations.recent("key", fail)
    assert calculations.recent("key", lambda: "well") == "well"
