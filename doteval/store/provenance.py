"""Stores the commands that began and continued experiments, and their tags and notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from doteval.core.experiments import Experiment
from doteval.core.json_codec import decode, encode
from doteval.core.labels import checked_tag
from doteval.core.provenance import GitState, Provenance
from doteval.store.baseline import baseline_id
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.tables import EXPERIMENT, EXPERIMENT_TAG, PROVENANCE


@dataclass(frozen=True, slots=True)
class ExperimentLabels:
    """What users have said of an experiment: tags, in order, a note, and whether it is the baseline of the store."""

    tags: tuple[str, ...] = ()
    note: str | None = None
    is_baseline: bool = False


class ProvenanceRecords:
    """Reads and writes the commands of experiments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, experiment: Experiment, provenance: Provenance) -> None:
        """Record a command, unless it is in everything but its time the same as the one before it.

        It was started now, if it does not say when.
        """
        with self._database.write() as connection:
            # Several processes of pytest-xdist begin one experiment at once; the lock has them record one command.
            held = select(EXPERIMENT.c.id).where(EXPERIMENT.c.id == experiment.id).with_for_update()
            if connection.scalar(held) is None:
                return
            last = connection.execute(
                select(PROVENANCE)
                .where(PROVENANCE.c.experiment_id == experiment.id)
                .order_by(PROVENANCE.c.id.desc())
                .limit(1)
            ).one_or_none()
            if last is not None and _provenance(last) == provenance:
                return
            git, started = provenance.git, provenance.started_at
            connection.execute(
                insert(PROVENANCE).values(
                    experiment_id=experiment.id,
                    started_at=database_time() if started is None else started.timestamp(),
                    command=encode(list(provenance.command)),
                    git_commit=None if git is None else git.commit,
                    git_branch=None if git is None else git.branch,
                    git_dirty=None if git is None else git.dirty,
                    hostname=provenance.host,
                    username=provenance.user,
                    versions=encode(dict(provenance.versions)),
                )
            )

    def of(self, experiment: Experiment) -> list[Provenance]:
        """The commands of an experiment, the one that began it first; none of releases that did not record them."""
        query = select(PROVENANCE).where(PROVENANCE.c.experiment_id == experiment.id).order_by(PROVENANCE.c.id)
        with self._database.read() as connection:
            return [_provenance(line) for line in connection.execute(query)]


class Labels:
    """Reads and writes the tags and the notes of experiments."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, experiment: Experiment) -> ExperimentLabels:
        """The labels of an experiment."""
        with self._database.read() as connection:
            note = connection.execute(select(EXPERIMENT.c.note).where(EXPERIMENT.c.id == experiment.id)).scalar()
            tags = tuple(_tags(connection, [experiment.id])[experiment.id])
            return ExperimentLabels(tags, note, baseline_id(connection) == experiment.id)

    def change(
        self, experiment: Experiment, *, add: Iterable[str] = (), remove: Iterable[str] = (), note: str | None = None
    ) -> None:
        """Add and remove tags; a note replaces the one before, and an empty one removes it.

        Raises UsageError: a text cannot be a tag; nothing is changed.
        """
        added, removed = [checked_tag(each) for each in add], list(remove)
        if not added and not removed and note is None:
            return
        with self._database.write() as connection:
            of = {"experiment_id": experiment.id}
            for tag in added:
                statement = insert_into(self._database.dialect, EXPERIMENT_TAG).values(**of, tag=tag)
                connection.execute(statement.on_conflict_do_nothing(index_elements=["experiment_id", "tag"]))
            for tag in removed:
                mine = EXPERIMENT_TAG.c.experiment_id == experiment.id
                connection.execute(delete(EXPERIMENT_TAG).where(mine, EXPERIMENT_TAG.c.tag == tag))
            if note is not None:
                changed = update(EXPERIMENT).where(EXPERIMENT.c.id == experiment.id)
                connection.execute(changed.values(note=note or None))


def first_commands(connection: Connection) -> dict[int, Provenance]:
    """The command that began each experiment, by the experiment's id."""
    first = select(func.min(PROVENANCE.c.id)).group_by(PROVENANCE.c.experiment_id)
    lines = connection.execute(select(PROVENANCE).where(PROVENANCE.c.id.in_(first)))
    return {line.experiment_id: _provenance(line) for line in lines}


def all_tags(connection: Connection) -> dict[int, list[str]]:
    """The tags of every experiment that has some, by its id, in the order of the alphabet."""
    return _tags(connection, None)


def _tags(connection: Connection, experiment_ids: Collection[int] | None) -> dict[int, list[str]]:
    query = select(EXPERIMENT_TAG)
    if experiment_ids is not None:
        query = query.where(EXPERIMENT_TAG.c.experiment_id.in_(experiment_ids))
    tags: dict[int, list[str]] = defaultdict(list)
    # Sorted here: databases sort text by rules of their own.
    for line in sorted(connection.execute(query), key=lambda line: str(line.tag)):
        tags[line.experiment_id].append(line.tag)
    return tags


def _provenance(line: Row[*tuple[Any, ...]]) -> Provenance:
    git = None if line.git_commit is None else GitState(line.git_commit, line.git_branch, line.git_dirty)
    return Provenance(
        command=tuple(decode(line.command)),
        git=git,
        host=line.hostname,
        user=line.username,
        versions=decode(line.versions),
        started_at=datetime.fromtimestamp(line.started_at, UTC),
    )
