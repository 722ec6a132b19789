"""What counts as one outage of the store, about which a process warns once."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from doteval.errors import Outage, StoreError
from doteval.store import Store


def failed_write(store: Store) -> Outage | None:
    """The outage that a write meets which fails for another reason than a value."""
    with pytest.raises(StoreError) as caught, store._database.write() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))
    return caught.value.outage


def test_reading_does_not_end_an_outage_of_writing(store: Store) -> None:
    """A server that was demoted answers those who read, while nothing can be stored."""
    outage = failed_write(store)
    assert outage is not None
    assert outage.say_once()
    assert store.experiments.overviews() == []
    again = failed_write(store)
    assert again is outage
    assert not again.say_once()
    store.experiments.begin("x")
    assert failed_write(store) is not outage


def test_reading_ends_an_outage_of_reading(store: Store) -> None:
    def failed_read() -> Outage | None:
        with pytest.raises(StoreError) as caught, store._database.read() as connection:
            connection.execute(text("SELECT 1 FROM nowhere"))
        return caught.value.outage

    outage = failed_read()
    assert failed_read() is outage
    assert store.experiments.overviews() == []
    assert failed_read() is not outage
