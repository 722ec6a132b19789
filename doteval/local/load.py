"""`load`: the stored results of an experiment, in scripts and notebooks."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from doteval.analysis.export import to_arrow
from doteval.analysis.figures import count, figure, interval, method_name
from doteval.analysis.html_tables import html_table, html_text
from doteval.core.experiments import Evaluation
from doteval.core.filters import Filter
from doteval.core.results import Record
from doteval.core.wording import counted
from doteval.errors import NotFoundError, UsageError
from doteval.local.results_summary import ResultsSummary
from doteval.settings import load_settings
from doteval.store import Store

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Answer = TypeVar("Answer")


def load(
    experiment: str, evaluation: str | None = None, *, where: str | None = None, storage: str | None = None
) -> LoadedResults:
    """Load the results of an experiment, wherever they were computed.

    ::

        results = doteval.load("nightly")
        results.to_pandas().groupby("evaluation")["score.exact_match"].mean()
        wrong = doteval.load("nightly", where="score.exact_match = 0")
        [record.result.model_response for record in wrong]

    evaluation: only evaluations whose ``file::name`` contains this
    where: only results that match this filter, as in ``doteval show --where``
    storage: the result store (default ``.doteval/doteval.db``)

    Nothing is held in memory but what you keep: each use reads the store as it is then.

    Raises NotFoundError: there is no such store, experiment or evaluation
    Raises UsageError: `where` is no filter
    Raises StoreError: the store cannot be used

    >>> from tempfile import mkdtemp
    >>> from doteval import foreach
    >>> from doteval.evaluators import exact_match
    >>> @foreach("word,capitals", [("yes", "YES"), ("no", "NO")])
    ... def eval_capitals(word, capitals, model):
    ...     return exact_match(model(word), capitals)
    >>> from doteval import run
    >>> store = f"{mkdtemp()}/results.db"
    >>> _ = run(eval_capitals, "nightly", storage=store, model=str.title)
    >>> [record.row.values["word"] for record in load("nightly", where="score.exact_match = 0", storage=store)]
    ['yes', 'no']
    """
    results = LoadedResults(load_settings(storage=storage).storage, experiment, evaluation, where)
    # A wrong name is an error here, not when the results are used.
    results._read(results._filter)
    return results


class StoredTable(ABC):
    """Results in a store that can be read as a table.

    Its columns are those of ``doteval export``: what identifies the row, its values as ``row.COLUMN``, its scores as
    ``score.NAME``, and the rest of its result. Values that are no bool, number or text are JSON text.
    """

    @abstractmethod
    def _read(self, use: Callable[[Store, list[Evaluation]], Answer]) -> Answer:
        """Call a function with the store, open, and the evaluations."""

    def _filter(self, store: Store, evaluations: list[Evaluation]) -> Filter | None:  # noqa: ARG002 - for subclasses
        """Which results belong to the table, None for all."""
        return None

    @abstractmethod
    def _title(self) -> str:
        """What this is, in a few words."""

    def summaries(self) -> Mapping[str, ResultsSummary]:
        """The metrics by evaluation: ``summaries()["eval_x.py::eval_x"]["exact_match"]["accuracy"]``.

        They are those of all its results, whatever filter chose the records.
        """
        return self._read(
            lambda store, evaluations: {
                each.spec.nodeid: ResultsSummary(store.summary(each), each.dataset_notes) for each in evaluations
            }
        )

    def to_arrow(self) -> pyarrow.Table:
        """All results as a table of Arrow. Raises UsageError: pyarrow is not installed."""
        return self._read(
            lambda store, evaluations: to_arrow(
                store.results.flat(evaluations, self._filter(store, evaluations)).table()
            )
        )

    def to_pandas(self) -> pandas.DataFrame:
        """All results as a data frame of pandas. Raises UsageError: pandas or pyarrow is not installed."""
        _check_installed("pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """All results as a data frame of Polars. Raises UsageError: Polars or pyarrow is not installed."""
        _check_installed("polars")
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def _repr_html_(self) -> str:
        """The metrics as a table of HTML, for notebooks."""
        summaries = self.summaries()
        titles = ("evaluation", "score", "metric", "value", "95% interval", "method", "n", "failed")
        lines = (
            (
                *(name, score.name, metric.name, figure(metric.value), interval(metric.interval)),
                *(method_name(metric.interval.method if metric.interval else None), count(metric.n)),
                count(metric.failed),
            )
            for name, summary in summaries.items()
            for score in summary.details
            for metric in score.metrics
        )
        notes = (
            f"<p>{html_text(f'{name}: {note}')}</p>"
            for name, summary in summaries.items()
            for note in (*summary.details.warnings, *summary.dataset_notes, *summary.details.notes)
        )
        return f"<p>{html_text(self._title())}</p>{html_table(titles, lines, left=3)}{''.join(notes)}"


class LoadedResults(StoredTable, Iterable[Record]):
    """The results of an experiment, as `load` returns them: its records in the order of the datasets, and tables."""

    def __init__(self, storage: str | None, experiment: str, evaluation: str | None, where: str | None) -> None:
        self._storage = storage
        self._experiment = experiment
        self._evaluation = evaluation
        self._where = where

    def _repr_html_(self) -> str:
        page = super()._repr_html_()
        return page if self._where is None else f"{page}<p>The metrics are those of all results.</p>"

    @property
    def experiment(self) -> str:
        """The name of the experiment."""
        return self._experiment

    @property
    def evaluations(self) -> tuple[str, ...]:
        """The evaluations, as ``file::name``."""
        return self._read(lambda _, evaluations: tuple(each.spec.nodeid for each in evaluations))

    def __getitem__(self, evaluation: str) -> LoadedResults:
        """The results of the evaluations whose ``file::name`` contains a text."""
        found = LoadedResults(self._storage, self._experiment, evaluation, self._where)
        missing = set(found.evaluations) - set(self.evaluations)
        if missing:
            raise NotFoundError(f"{', '.join(sorted(missing))} is not among these results")
        return found

    def __iter__(self) -> Iterator[Record]:
        with Store.open(self._storage, create=False) as store:
            evaluations = self._evaluations(store)
            where = self._filter(store, evaluations)
            for evaluation in evaluations:
                yield from store.selections.records(evaluation.id, where)

    def __len__(self) -> int:
        def count(store: Store, evaluations: list[Evaluation]) -> int:
            where = self._filter(store, evaluations)
            return sum(store.selections.count(each.id, where) for each in evaluations)

        return self._read(count)

    def __repr__(self) -> str:
        return f"<{self._title()}>"

    def _title(self) -> str:
        where = "" if self._where is None else f" where {self._where}"
        return f"{counted(len(self), 'result')} of {self._experiment!r}{where}: {', '.join(self.evaluations)}"

    def _read(self, use: Callable[[Store, list[Evaluation]], Answer]) -> Answer:
        with Store.open(self._storage, create=False) as store:
            return use(store, self._evaluations(store))

    def _filter(self, store: Store, evaluations: list[Evaluation]) -> Filter | None:
        return None if self._where is None else store.selections.filter(evaluations, self._where)

    def _evaluations(self, store: Store) -> list[Evaluation]:
        return store.evaluations.of(store.experiments.find(self._experiment), self._evaluation)


def _check_installed(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UsageError(
            f"a data frame of {package} needs {package}, which is not installed",
            remedy=f"Install it: pip install {package}",
        )
