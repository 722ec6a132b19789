"""The counters never drift: after any interleaving of changes, counters, a scan and a model agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doteval.core.experiments import Counts, Evaluation
from doteval.core.results import Outcome, Row
from doteval.store import NewResult, Store
from tests.support.store_workload import SPEC, begin, counted, done, failed, skipped

_ROWS, _EPOCHS = 6, 2

_OUTCOMES: dict[str, Callable[[], Outcome]] = {"done": done, "failed": failed, "skipped": skipped}

_result = st.tuples(
    st.integers(0, _ROWS),  # one beyond the rows that there are
    st.integers(0, _EPOCHS - 1),
    st.sampled_from(sorted(_OUTCOMES)),
    st.booleans(),  # for the row's present content, or for what it was before
)
_operation: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.lists(_result, min_size=1, max_size=8)),
    st.tuples(st.just("retry")),
    st.tuples(st.just("replace"), st.lists(st.integers(0, _ROWS - 1), min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("truncate"), st.integers(0, _ROWS)),
    st.tuples(st.just("grow")),
    st.tuples(st.just("fewer epochs")),
)


@dataclass
class _Model:
    """A simple model of what the store should hold."""

    store: Store
    evaluation: Evaluation
    epochs: int = _EPOCHS
    versions: dict[int, int] = field(default_factory=dict)
    statuses: dict[tuple[int, int], str] = field(default_factory=dict)
    retried: set[tuple[int, int]] = field(default_factory=set)

    def row(self, index: int, sample: int = 0, *, present: bool = True) -> Row:
        version = self.versions.get(index, 0) - (0 if present else 1)
        return Row(index, f"{index}v{version}", {"text": version}, sample)

    def write(self, worker: int, new: list[tuple[int, int, str, bool]]) -> None:
        kept = 0
        for index, sample, status, present in new:
            key = (index, sample)
            if present and index in self.versions and (key not in self.statuses or key in self.retried):
                self.statuses[key] = status
                self.retried.discard(key)
                kept += 1
        results = [
            NewResult(self.evaluation.id, self.row(index, sample, present=present), _OUTCOMES[status]())
            for index, sample, status, present in new
        ]
        assert self.store.results.write(results, worker or None) == kept

    def retry(self) -> None:
        failed = {key for key, status in self.statuses.items() if status == "failed"} - self.retried
        self.retried |= failed
        assert self.store.rows.retry_failed(self.evaluation.id) == len(failed)

    def replace(self, indexes: list[int]) -> None:
        indexes = [index for index in indexes if index in self.versions]
        for index in indexes:
            self.versions[index] += 1
        self.store.rows.replace(self.evaluation.id, [self.row(index) for index in indexes])
        self._forget(lambda key: key[0] in indexes)

    def truncate(self, length: int) -> None:
        self.versions = {index: version for index, version in self.versions.items() if index < length}
        self.store.rows.truncate(self.evaluation.id, length)
        self._forget(lambda key: key[0] >= length)

    def grow(self) -> None:
        for index in range(_ROWS):
            self.versions.setdefault(index, 0)
        self.store.rows.add(self.evaluation.id, [self.row(index) for index in range(_ROWS)])

    def fewer_epochs(self) -> None:
        self.epochs = 1
        self.store.evaluations.begin(self.evaluation.experiment, SPEC, epochs=1, allow_changed=True)
        self.store.evaluations.begin(self.evaluation.experiment, SPEC, epochs=_EPOCHS)
        self._forget(lambda key: key[1] >= 1)

    def _forget(self, gone: Callable[[tuple[int, int]], bool]) -> None:
        self.statuses = {key: status for key, status in self.statuses.items() if not gone(key)}
        self.retried = {key for key in self.retried if not gone(key)}

    def check(self) -> None:
        settled = [status for key, status in self.statuses.items() if key not in self.retried]
        expected = Counts(None, **{status: settled.count(status) for status in _OUTCOMES})
        assert self.store.evaluations.counts(self.evaluation.id) == counted(self.store, self.evaluation) == expected
        finished = {key for key in self.statuses if key not in self.retried}
        pending = [
            (index, sample)
            for index in sorted(self.versions)
            for sample in range(_EPOCHS)
            if (index, sample) not in finished
        ]
        assert [(row.index, row.sample) for row in self.store.rows.pending(self.evaluation.id, 0, _ROWS)] == pending
        ranges = list(self.store.rows.pending_ranges(self.evaluation.id, 3))
        assert {index for index, _ in pending} <= {
            index for part in ranges for index in range(part.first, part.last + 1)
        }
        scores = self.store.results.score_columns(self.evaluation.id)
        assert sum(len(column.values) for column in scores) == list(self.statuses.values()).count("done")
        assert len(list(self.store.results.records(self.evaluation.id))) == len(self.statuses)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(_operation, min_size=1, max_size=14))
def test_counters_agree_with_the_results_after_any_operations(store: Store, operations: list[tuple[Any, ...]]) -> None:
    model = _Model(store, begin(store, name=uuid4().hex, epochs=_EPOCHS))
    model.grow()
    for name, *arguments in operations:
        getattr(model, name.replace(" ", "_"))(*arguments)
        model.check()
