"""The age of a heartbeat is the time that has passed for the process that looks, whatever others' clocks say."""

from __future__ import annotations

import pytest

from doteval.store.heartbeat_ages import Beat, HeartbeatAges
from tests.support.clock import Clock

HOUR = 3600.0


class Looks:
    """Looks at one process, which sends heartbeats, by a database's clock that the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.now = 50.0
        self.ages = HeartbeatAges(self.clock)
        self.database = 1e9
        self.beat_at = self.database

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.database += seconds

    def beat(self) -> None:
        self.beat_at = self.database

    def age(self) -> float:
        beat = Beat(1, self.beat_at, self.database - self.beat_at)
        self.ages.look([beat], began=self.ages.now())
        return round(self.ages.age_of(beat), 3)


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_the_age_grows_until_the_next_heartbeat(looks: Looks) -> None:
    looks.wait(0.25)
    assert looks.age() == 0.25
    looks.wait(2.0)
    assert looks.age() == 2.25
    looks.beat()
    looks.wait(0.5)
    assert looks.age() == 0.5
    looks.wait(20.0)
    assert looks.age() == 20.5


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 3.0, -3.0])
def test_a_clock_that_is_set_changes_no_age(looks: Looks, jump: float) -> None:
    looks.wait(0.25)
    looks.age()
    looks.database += jump
    assert looks.age() == 0.25
    looks.wait(1.0)
    assert looks.age() == 1.25
    # It dies at that moment: it is dead as soon as without the jump.
    looks.wait(14.0)
    assert looks.age() == 15.25


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_heartbeat_that_is_new_is_younger_than_the_last_look(looks: Looks, jump: float) -> None:
    looks.age()
    looks.wait(2.0)
    looks.beat()
    looks.database += jump
    assert 0.0 <= looks.age() <= 2.0
    looks.wait(1.0)
    looks.beat()
    looks.wait(0.5)
    assert looks.age() == 0.5


@pytest.mark.parametrize("age", [HOUR, -HOUR])
def test_the_first_look_has_the_database_s_clock_only(looks: Looks, age: float) -> None:
    looks.database += age
    assert looks.age() == HOUR
    looks.wait(1.0)
    looks.beat()
    assert looks.age() == 0.0


def test_a_process_is_watched_since_its_last_heartbeat_was_first_seen(looks: Looks) -> None:
    looks.database += HOUR
    looks.age()
    looks.wait(2.0)
    looks.age()
    assert looks.ages.watched(Beat(1, looks.beat_at, 0.0)) == 2.0
    looks.beat()
    looks.age()
    looks.wait(0.5)
    assert looks.ages.watched(Beat(1, looks.beat_at, 0.0)) == 0.5
    assert looks.ages.watched(Beat(2, looks.beat_at, 0.0)) == 0.0


def test_who_lived_at_the_last_look_is_remembered_for_a_minute(looks: Looks) -> None:
    looks.age()
    looks.wait(10.0)
    assert looks.ages.younger_than(15.0) == {1}
    looks.wait(10.0)
    assert looks.ages.younger_than(15.0) == set()
    looks.ages.look([], began=looks.ages.now())
    assert looks.ages.watched(Beat(1, looks.beat_at, 0.0)) == 20.0
    looks.wait(60.0)
    looks.ages.look([], began=looks.ages.now())
    assert looks.ages.watched(Beat(1, looks.beat_at, 0.0)) == 0.0
