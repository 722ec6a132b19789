"""Which rows of an evaluation a page is about, in which order: what its URL says, and how they are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from doteval.core.experiments import Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.core.filter_grammar import parse_field, parse_filter
from doteval.core.filters import LABEL, AllOf, FieldNames, Filter, failed_rows, fields_of, wrong_rows
from doteval.errors import NotFoundError, UsageError
from doteval.store import Store
from doteval.store.comparisons import (
    ComparisonOptions,
    EvaluationPair,
    Matched,
    Selection,
    compare_pairs,
    match_evaluations,
    select_evaluations,
)
from doteval.store.row_pages import RowKey, RowPage, RowsWanted
from doteval.store.selections import SortOrder
from doteval.view.parameters import Parameters, ParameterValue, link
from doteval.view.visit import Visit, progress_key

# What the parameter `show` can be, with its meaning.
SHOWN = {
    "wrong": "done, with a score of 0",
    "failed": "failed",
    "slow": "sorted by the time they took",
    "flipped": "scores that differ from another experiment, those that differ most first",
}
# Rows of a page, and of a part of an order, which is a whole number of pages. An order of all rows would be kept for
# every visitor.
PAGE = 50
PART = 5_000
# Rows that changed most, at most.
MOST_FLIPPED = 1_000
# Seconds that a page looks for rows with a filter, with a text, and for the row before or behind another.
_FILTER_SECONDS = 0.25
_TEXT_SECONDS = 0.8
_NEIGHBOUR_SECONDS = 0.1
_MOST_PAGES = 10**9
_MOST_INDEX = 10**15 - 1
_MOST_SAMPLE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RowChoice:
    """The rows of one evaluation that a page is about.

    names: those that fields may have.
    show: a key of `SHOWN`, or empty.
    against: the experiment whose scores differ, for `flipped`.
    page: of a list that is sorted, from 1.
    where, search, sort: as they are given; `sort` also follows from `show`.
    filter, order: what they mean.
    problem: why the filter cannot be read; there are no rows then.
    """

    experiment: Experiment
    evaluation: Evaluation
    names: FieldNames
    show: str
    against: str | None
    page: int
    where: str | None
    search: str | None
    sort: str | None
    filter: Filter | None = None
    order: SortOrder | None = None
    problem: UsageError | None = None

    @property
    def scores(self) -> Sequence[str]:
        """The scores that the rows have."""
        return self.names.scores or ()

    @property
    def columns(self) -> Sequence[str]:
        """The columns of the rows."""
        return self.names.columns or ()

    @classmethod
    def of(cls, visit: Visit, fields: Sequence[str] = ()) -> RowChoice:
        """What the URL says.

        fields: texts of fields that the page reads, whose scores must be known.

        Raises NotFoundError: there is no such experiment or evaluation.
        Raises UsageError: a parameter cannot be used.
        """
        given, store = visit.parameters, visit.store
        evaluation = chosen_evaluation(visit)
        experiment = evaluation.experiment
        show = given.choice("show", SHOWN, "")
        where, search, against = given.text("where"), given.text("search"), given.text("against")
        page = given.number("page", 1, least=1, most=_MOST_PAGES)
        if against is not None:
            show = "flipped"
        sort = given.text("sort") or ("-seconds" if show == "slow" else None)
        names = store.selections.names([evaluation], [where, sort, *fields])
        parts: list[Filter] = []
        if show == "wrong":
            parts.append(wrong_rows(names.scores or ()))
        if show == "failed":
            parts.append(failed_rows())
        order, problem = None, None
        try:
            if where is not None:
                parts.append(parse_filter(where, names))
            if sort is not None:
                field = parse_field(sort.removeprefix("-"), names)
                order = SortOrder(field, sort.startswith("-"))
        except UsageError as error:
            problem = error
        if show == "flipped":
            base = store.baseline.find()
            against = against or (None if base is None else base[0].name)
            if against is None:
                problem = UsageError("no experiment is named whose scores may differ", remedy="Name one as “against”.")
        found = AllOf(tuple(parts)) if parts else None
        return cls(experiment, evaluation, names, show, against, page, where, search, sort, found, order, problem)

    @property
    def wanted(self) -> RowsWanted:
        return RowsWanted(self.evaluation.id, self.filter, self.search, self.evaluation.spec.columns)

    @property
    def is_listed(self) -> bool:
        """Whether its rows are a list that is computed in the background, rather than read page by page."""
        return self.order is not None or self.show == "flipped"

    @property
    def _reads_labels(self) -> bool:
        fields = [] if self.filter is None else fields_of(self.filter)
        return LABEL in fields or (self.order is not None and self.order.field == LABEL)

    def parameters(self) -> dict[str, ParameterValue]:
        """The parameters that say it again, on this page or another."""
        return {
            "experiment": self.experiment.name,
            "evaluation": self.evaluation.spec.nodeid,
            "show": self.show,
            "against": self.against,
            "where": self.where,
            "search": self.search,
            # The order of slow rows follows from `show`.
            "sort": None if self.show == "slow" and self.sort == "-seconds" else self.sort,
        }

    def row_link(self, key: RowKey, place: int | None = None) -> str:
        """A link to the page of a row, which knows the rows before and behind it.

        place: that of the row among those of `listed`, if it is in a list.
        """
        page = 1 if place is None else (self.part * PART + place) // PAGE + 1
        return link("row", **self.parameters(), index=key[0], sample=key[1] or None, page=page if page > 1 else None)

    @property
    def part(self) -> int:
        """Which part of the order holds the page, from 0. There is one part of rows that changed."""
        return 0 if self.show == "flipped" else (self.page - 1) * PAGE // PART

    def listed(self, visit: Visit) -> Sequence[RowKey] | None:
        """The rows of a part of a list, and the first one of the next part.

        None while it is being computed, or if that fails.
        """
        running = self.evaluation.status is EvaluationStatus.RUNNING
        state = progress_key(self.evaluation.counts, running=running)
        labels = visit.store.row_labels.state(self.evaluation.id) if self._reads_labels else None
        subject = ("rows", self.evaluation.uid, labels, self.part, *self.parameters().items())
        return visit.compute("rows", subject, state, self._list, running=running)

    def _list(self, store: Store) -> Sequence[RowKey]:
        if self.show == "flipped":
            assert self.against is not None
            return store.row_pages.among(_flipped(store, self.evaluation, self.against), self.wanted, self.order)
        assert self.order is not None
        return store.row_pages.sorted_part(self.wanted, self.order, PART + 1, skip=self.part * PART)

    def after(self, store: Store, key: RowKey | None, size: int, *, neighbour: bool = False) -> RowPage:
        """The next rows behind one, of rows that are no list.

        neighbour: look for a shorter time, beside other things that a page reads.
        """
        return store.row_pages.after(self.wanted, key, size, self._seconds(neighbour))

    def before(self, store: Store, key: RowKey | None, size: int, *, neighbour: bool = False) -> RowPage:
        """The rows before one, of rows that are no list; see `after`."""
        return store.row_pages.before(self.wanted, key, size, self._seconds(neighbour))

    def _seconds(self, neighbour: bool) -> float:
        if neighbour:
            return _NEIGHBOUR_SECONDS
        return _TEXT_SECONDS if self.search else _FILTER_SECONDS


def chosen_key(given: Parameters) -> RowKey:
    """The index and the sample of the row that a URL names. Raises UsageError: they are no numbers."""
    index = given.number("index", 0, least=0, most=_MOST_INDEX)
    return index, given.number("sample", 0, least=0, most=_MOST_SAMPLE)


def chosen_evaluation(visit: Visit) -> Evaluation:
    """The evaluation that a URL names, the first one of the experiment if it names none.

    Raises NotFoundError: there is none.
    """
    store = visit.store
    experiment = store.experiments.find(visit.parameters.required("experiment"))
    nodeid = visit.parameters.text("evaluation")
    if nodeid is None:
        found = store.evaluations.of(experiment)
        if not found:
            raise NotFoundError(
                f"the experiment {experiment.name!r} has no evaluations", remedy="Run its evaluations first."
            )
        return found[0]
    path, _, name = nodeid.partition("::")
    evaluation = store.evaluations.find(experiment, EvaluationSpec(path, name, ()))
    if evaluation is None:
        raise NotFoundError(
            f"the experiment {experiment.name!r} has no evaluation {nodeid!r}",
            remedy="Its page lists the evaluations that it has.",
        )
    return evaluation


def _flipped(store: Store, evaluation: Evaluation, against: str) -> Sequence[RowKey]:
    """The rows of an evaluation whose scores differ most from those of another experiment."""
    other = Selection(evaluation.experiment, (evaluation,), named=False)
    base = select_evaluations(store, against)
    pairs = [
        EvaluationPair(pair.baseline, pair.other)
        for pair in match_evaluations(base, [other]).pairs
        if pair.other.id == evaluation.id
    ]
    options = ComparisonOptions(changed_rows=MOST_FLIPPED)
    comparison = compare_pairs(store, Matched(tuple(pairs), (), ()), options)
    changed = [change for each in comparison.evaluations for metric in each.metrics for change in metric.changed]
    return tuple(dict.fromkeys((change.index, 0) for change in changed))[:MOST_FLIPPED]
