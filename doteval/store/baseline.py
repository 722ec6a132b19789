"""The baseline of a result store: the experiment that others are compared with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from doteval.core.experiments import Experiment
from doteval.errors import NotFoundError, UsageError
from doteval.store.engine import Database, database_time
from doteval.store.tables import EXPERIMENT

BASELINE = "baseline"
"""The word that commands take in place of the baseline's name."""


class Baseline:
    """Reads and sets the baseline of a store, of which there is at most one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, experiment: Experiment) -> None:
        """Make an experiment the baseline, in place of the one before it."""
        with self._database.write() as connection:
            _clear(connection)
            named = update(EXPERIMENT).where(EXPERIMENT.c.id == experiment.id)
            connection.execute(named.values(baseline_since=database_time()))

    def clear(self) -> None:
        """Leave the store without a baseline."""
        with self._database.write() as connection:
            _clear(connection)

    def find(self) -> tuple[Experiment, datetime] | None:
        """The baseline, and when it was set; None if the store has none."""
        with self._database.read() as connection:
            line = _baseline(connection)
        if line is None:
            return None
        created_at, since = (datetime.fromtimestamp(each, UTC) for each in (line.created_at, line.baseline_since))
        return Experiment(line.id, line.name, created_at), since

    def named(self, name: str) -> str:
        """The name of the experiment that a user means: that of the baseline for the word ``baseline``.

        An experiment whose own name is ``baseline`` can be meant too, where no other one is the baseline.

        Raises NotFoundError: the store has neither.
        Raises UsageError: the store has both.
        """
        if name != BASELINE:
            return name
        found = self.find()
        query = select(EXPERIMENT.c.id).where(EXPERIMENT.c.name == BASELINE)
        with self._database.read() as connection:
            of_this_name = connection.scalar(query)
        if found is None:
            if of_this_name is None:
                raise NotFoundError(
                    f"no experiment is the baseline of {self._database.location.shown}",
                    remedy="Set one: doteval baseline set NAME",
                )
            return name
        if of_this_name not in (None, found[0].id):
            raise UsageError(
                f"'baseline' can mean {found[0].name!r}, which is the baseline, or the experiment of this name",
                remedy="Rename the latter (doteval rename baseline NEW), or make it the baseline "
                "(doteval baseline set baseline).",
            )
        return found[0].name


def baseline_id(connection: Connection) -> int | None:
    """The id of the experiment that is the baseline, None if there is none."""
    line = _baseline(connection)
    return None if line is None else int(line.id)


def _baseline(connection: Connection) -> Row[*tuple[Any, ...]] | None:
    # Two commands that set one at the same moment may leave two; the later one is the baseline.
    query = (
        select(EXPERIMENT)
        .where(EXPERIMENT.c.baseline_since.is_not(None))
        .order_by(EXPERIMENT.c.baseline_since.desc(), EXPERIMENT.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).one_or_none()


def _clear(connection: Connection) -> None:
    of_baselines = update(EXPERIMENT).where(EXPERIMENT.c.baseline_since.is_not(None))
    connection.execute(of_baselines.values(baseline_since=None))
