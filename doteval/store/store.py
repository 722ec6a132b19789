"""Opens a result store. Its attributes hold the queries, one for each noun."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from doteval.analysis.summary import Summary, summarize_evaluation
from doteval.core import clocks
from doteval.core.experiments import Evaluation
from doteval.core.file_descriptors import is_lack_of_descriptors
from doteval.core.private_files import make_private_file
from doteval.errors import NotFoundError, StoreError, UsageError
from doteval.store.attempts import Attempts
from doteval.store.backup import back_up
from doteval.store.baseline import Baseline
from doteval.store.budget_shares import BudgetShares
from doteval.store.calls import Calls
from doteval.store.crashes import Crashes
from doteval.store.driver_errors import no_descriptors
from doteval.store.engine import Database, database_time
from doteval.store.evaluations import Evaluations
from doteval.store.experiment_contents import ExperimentContents
from doteval.store.experiments import Experiments
from doteval.store.fixture_loads import FixtureLoads
from doteval.store.imports import Imports
from doteval.store.migrations import VERSIONS, check_current, current_version, prepare, upgrade, use_write_ahead_log
from doteval.store.provenance import Labels, ProvenanceRecords
from doteval.store.provider_batches import ProviderBatches
from doteval.store.read_only import FileIdentity, file_identity
from doteval.store.results import StoredResults
from doteval.store.row_labels import RowLabels
from doteval.store.row_pages import RowPages
from doteval.store.row_samples import RowSamples
from doteval.store.rows import Rows
from doteval.store.selections import Selections
from doteval.store.sizes import StoreSizes, measure
from doteval.store.store_copy import CopiedStore, CopyProgress, copy_database
from doteval.store.summaries import Summaries
from doteval.store.tables import EXPERIMENT
from doteval.store.url import Location, locate
from doteval.store.usage import UsageReports
from doteval.store.wanted_calls import WantedCalls
from doteval.store.workers import Workers

if TYPE_CHECKING:
    from doteval.store.distributions import Distributions


class Store:
    """A result store, open. Threads may share it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory, Store.open(f"{directory}/results.db") as store:
    ...     store.experiments.begin("first").name
    'first'
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.experiments = Experiments(database)
        self.baseline = Baseline(database)
        self.provenance = ProvenanceRecords(database)
        self.labels = Labels(database)
        self.evaluations = Evaluations(database)
        self.contents = ExperimentContents(database)
        self.imports = Imports(database)
        self.rows = Rows(database)
        self.samples = RowSamples(database)
        self.results = StoredResults(database)
        self.selections = Selections(database)
        self.row_pages = RowPages(database)
        self.row_labels = RowLabels(database)
        self.attempts = Attempts(database)
        self.calls = Calls(database)
        self.wanted = WantedCalls(database)
        self.batches = ProviderBatches(database)
        self.summaries = Summaries(database)
        self.crashes = Crashes(database)
        self.workers = Workers(database)
        self.loads = FixtureLoads(database)
        self.usage = UsageReports(database)
        self.budget_shares = BudgetShares(database)

    @functools.cached_property
    def distributions(self) -> Distributions:
        """How scores, times and tokens are distributed."""
        # It takes numpy, which starts threads: with them the fork server of worker processes could not fork.
        from doteval.store.distributions import Distributions

        return Distributions(self._database)

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = True, upgrade: bool = True) -> Store:
        """Open the store at a URL or path (see `locate`), and bring its schema up to date.

        create: whether to create a missing SQLite file, and the tables of an empty database. Commands that only read
            do not.
        upgrade: whether to upgrade an older SQLite file; otherwise it must have the newest schema.

        Raises StoreError: it cannot be reached.
        Raises StoreVersionError: this doteval cannot use its schema.
        Raises NotFoundError: it does not exist, and `create` is False.
        """
        location = locate(url)
        if create:
            _make_file(location)
        else:
            _check_exists(location)
        database = Database(location)
        try:
            if upgrade:
                prepare(database, create=create)
            else:
                check_current(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @classmethod
    def open_read_only(cls, url: str | None = None, *, seconds: float) -> Store:
        """Open the store at a URL for reading: it is not upgraded, and whatever would write raises an error.

        seconds: reading raises StoreTimeoutError after so long.

        Raises the errors of `open`; StoreVersionError also for an older SQLite file.
        """
        location = locate(url)
        _check_exists(location)
        database = Database(location, read_seconds=seconds)
        try:
            check_current(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @staticmethod
    def upgrade(url: str | None = None) -> tuple[str | None, str]:
        """Bring the schema of the store at a URL to the newest version, for ``doteval db upgrade``.

        Returns the version before and the version after. Raises the errors of `open`.
        """
        location = locate(url)
        _check_exists(location)
        database = Database(location)
        try:
            return upgrade(database)
        finally:
            database.close()

    @staticmethod
    def versions(url: str | None = None) -> tuple[str | None, str]:
        """The schema version of the store at a URL (None if it has no tables yet), and the newest version.

        Raises NotFoundError: there is no such file.
        Raises StoreError: the store cannot be reached.
        """
        location = locate(url)
        _check_exists(location)
        database = Database(location)
        try:
            return current_version(database), VERSIONS[-1]
        finally:
            database.close()

    @staticmethod
    def back_up(url: str | None, target: Path) -> None:
        """Copy the store at a URL into the file `target`; see `doteval.store.backup`.

        Raises NotFoundError: there is no such file; and the errors of `doteval.store.backup.back_up`.
        """
        location = locate(url)
        _check_exists(location)
        back_up(location, target)

    def copy_into(self, url: str, on_progress: Callable[[CopyProgress], None]) -> CopiedStore:
        """Copy the whole store into the empty or missing one at `url`; see `doteval.store.store_copy`.

        on_progress: called now and then with how far the copy is.

        Raises UsageError: the target holds something, or is this store.
        Raises StoreError: one of the two cannot be used. The target then holds nothing.
        """
        location = locate(url)
        if location == self._database.location:
            raise UsageError(f"{location.shown} cannot be copied into itself", remedy="Give another store as target.")
        is_new = location.path is not None and not location.path.exists()
        _make_file(location)
        target = Database(location)
        try:
            if target.is_sqlite:
                use_write_ahead_log(target)
            copied = copy_database(self._database, target, on_progress)
        except BaseException:
            target.close()
            if is_new and location.path is not None:
                for end in ("", "-wal", "-shm"):
                    location.path.with_name(f"{location.path.name}{end}").unlink(missing_ok=True)
            raise
        target.close()
        return copied

    def sizes(self) -> StoreSizes:
        """What the parts of the store take on disk. Raises StoreError: it cannot be reached."""
        return measure(self._database)

    def summary(self, evaluation: Evaluation) -> Summary:
        """The metrics of an evaluation: those stored when it ended, or else computed from the scores so far."""
        stored = self.summaries.read(evaluation)
        return stored or summarize_evaluation(evaluation, self.results.score_columns(evaluation.id))

    def clock_offset(self) -> float:
        """Seconds by which the database's clock is ahead of this machine's, as exact as one query allows."""
        before = clocks.now()
        with self._database.read() as connection:
            now = float(connection.execute(select(database_time())).scalar_one())
        return now - (before + clocks.now()) / 2

    def now(self) -> datetime:
        """The moment by the database's clock."""
        with self._database.read() as connection:
            return datetime.fromtimestamp(connection.execute(select(database_time())).scalar_one(), UTC)

    def check_writable(self) -> None:
        """Check that the store can be written, without changing it.

        Raises StoreReadOnlyError or StoreError: it cannot be written now.
        """
        with self._database.write() as connection:
            connection.execute(update(EXPERIMENT).where(EXPERIMENT.c.id == -1).values(name=EXPERIMENT.c.name))

    @property
    def url(self) -> str:
        """The URL without its password, for messages."""
        return self._database.location.shown

    @property
    def raw_url(self) -> str:
        """The URL with its password, for worker processes. Never show it."""
        return self._database.location.raw

    def check_version(self) -> None:
        """Raises StoreVersionError: another doteval has upgraded the store since it was opened."""
        check_current(self._database)

    @property
    def file(self) -> FileIdentity | None:
        """Which SQLite file is at the store's path now, None on PostgreSQL: what was read from another one is stale."""
        path = self._database.location.path
        return None if path is None else file_identity(path)

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"


def _check_exists(location: Location) -> None:
    if location.path is not None and not location.path.exists():
        raise NotFoundError(
            f"there is no result store {location.path}",
            remedy="Give the one of your experiment with --storage, or run an evaluation first.",
            page="troubleshooting#experiment-not-found",
        )


def _make_file(location: Location) -> None:
    if location.path is None:
        return
    try:
        make_private_file(location.path)
    except OSError as error:
        if is_lack_of_descriptors(error):
            raise no_descriptors(f"the result store {location.shown}") from error
        raise StoreError(
            f"the result store {location.path} cannot be made: {error.strerror}",
            remedy="Check the path: sqlite://a/b.db is below this directory, sqlite:///a/b.db is absolute.",
        ) from error
