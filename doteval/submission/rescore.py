"""`rescore` runs the rows of an experiment again as the evaluation files are now, on the calls that were recorded."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from doteval.core.call_journal import JournalMode
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment
from doteval.core.rescoring import MissingCalls, Rescoring
from doteval.core.run_config import RunConfig
from doteval.errors import ChangedError, NotFoundError, UsageError
from doteval.pytest_runtime.embedded_session import Collected, with_collected
from doteval.pytest_runtime.items import EvaluationItem
from doteval.store import Store
from doteval.submission.evaluation_files import common_root, file_of
from doteval.submission.follow import Following, ProgressObserver
from doteval.submission.submit import Submission, SubmitOptions, check_options, submit_items
from doteval.supervision.fork_server import ForkServer

# Rows that are copied in one transaction; other writers wait for as long.
_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """What is rescored.

    evaluations: some of those of the experiment, or all.
    missing: what becomes of calls whose reply is not recorded.
    """

    experiment: Experiment
    evaluations: Sequence[Evaluation]
    missing: MissingCalls = MissingCalls.FAIL


def rescore(
    store: Store,
    source: Source,
    options: SubmitOptions,
    observer: ProgressObserver,
    fork_server: ForkServer | None = None,
) -> Submission:
    """Run the rows of an experiment again, as another experiment, and answer their calls from its call journal.

    options: of the submission. Its target names the new experiment, whose rows that are done do not run again; without
        paths, the files that the experiment ran are used, as they are now.

    Returns as `submit` does.

    Raises UsageError, NotFoundError, EvaluationFileError or ChangedError: the options or the files need a change, or
        the calls cannot be replayed
    Raises BrokerError, StoreError, BudgetError or WorkerError: as `submit` does
    """
    check_options(options)
    if not source.evaluations:
        raise UsageError(
            f"the experiment {source.experiment.name!r} has no evaluations",
            remedy="`doteval list` shows those that have.",
        )
    store.experiments.refuse_imported(
        source.experiment, "cannot be rescored", "The tool that wrote the log can score it again; import that."
    )
    _check_name(store, source, str(options.target.experiment))
    chains = {each.uid: _chain(store, each) for each in source.evaluations}
    for evaluation in source.evaluations:
        _check(store, evaluation, chains[evaluation.uid])
    paths, root = options.paths, None
    if not paths:
        folder = common_root(source.evaluations)
        again = f"Name it as it is now: doteval rescore {source.experiment.name} --as NEW FILE"
        files = [file_of(each, folder, again) for each in source.evaluations]
        paths, root = tuple(dict.fromkeys(map(str, files))), str(folder)
    finished: list[Submission] = []

    def body(collected: Collected) -> None:
        matched = _matched(source, collected, observer)
        rows = _StoredRows(store, source, matched, chains)
        placed = replace(options, paths=paths, root=root)
        finished.append(submit_items(store, list(matched), rows, placed, observer, fork_server))

    with_collected(paths, body, keyword=options.keyword, root=root)
    return finished[0]


class _StoredRows:
    """Copies the rows of the evaluations that are rescored."""

    def __init__(
        self,
        store: Store,
        source: Source,
        matched: Mapping[EvaluationItem, Evaluation],
        chains: Mapping[str, Sequence[Evaluation]],
    ) -> None:
        self._store = store
        self._source = source
        self._matched = matched
        self._chains = chains

    def config(self, item: EvaluationItem, config: RunConfig) -> RunConfig:
        """The configuration of the evaluation that is rescored, with the budget and the place of the command."""
        source = self._matched[item]
        sources = tuple(each.uid for each in self._chains[source.uid])
        return replace(
            source.config.with_budget(config.budget),
            replay=False,
            submitted=config.submitted,
            queue=config.queue,
            private_broker=config.private_broker,
            traceparent=config.traceparent,
            rescoring=Rescoring(self._source.experiment.name, sources, self._source.missing),
        )

    def epochs(self, item: EvaluationItem) -> int:
        return self._store.rows.dataset_state(self._matched[item].id).epochs

    def add(self, item: EvaluationItem, evaluation: Evaluation, following: Following) -> Iterator[bool]:
        store, source, through_outage = self._store, self._matched[item], following.through_outage
        if through_outage(lambda: store.rows.dataset_state(evaluation.id)).complete:
            return
        total = through_outage(lambda: store.rows.dataset_state(source.id)).rows
        for first in range(0, total, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, total) - 1
            through_outage(functools.partial(store.rows.copy, source.id, evaluation.id, first, last))
            yield True
        note = f"rescored from {self._source.experiment.name!r}, with the replies of models that were recorded there"
        through_outage(
            lambda: store.rows.set_total(
                evaluation.id,
                total,
                complete=True,
                fingerprint=None,
                notes=[*source.dataset_notes, note],
                rows_hash=source.rows_hash,
            )
        )


def _check_name(store: Store, source: Source, name: str) -> None:
    """Raise UsageError if the new experiment exists, and is no rescoring of this one that can be continued."""
    try:
        known = store.evaluations.of(store.experiments.find(name))
    except NotFoundError:
        return
    mine = {each.uid for each in store.evaluations.of(source.experiment)}
    if not all(each.config.rescoring is not None and each.config.rescoring.sources[0] in mine for each in known):
        raise UsageError(
            f"the experiment {name!r} exists, and was not rescored from {source.experiment.name!r}",
            remedy="Give another name with --as.",
        )


def _chain(store: Store, evaluation: Evaluation) -> list[Evaluation]:
    """The evaluation, the one that it was rescored from, and so on."""
    found = [evaluation]
    rescoring = evaluation.config.rescoring
    for uid in rescoring.sources if rescoring is not None else ():
        try:
            found.append(store.evaluations.by_uid(uid))
        except NotFoundError as error:
            assert rescoring is not None
            raise UsageError(
                f"{evaluation.spec.nodeid} was rescored from {rescoring.experiment!r}, which has been deleted with its "
                "calls",
                remedy="Submit it again, which sends all requests anew.",
            ) from error
    return found


def _check(store: Store, evaluation: Evaluation, chain: Sequence[Evaluation]) -> None:
    """Raise UsageError if the calls of an evaluation cannot be replayed."""
    what = f"{evaluation.spec.nodeid} of {evaluation.experiment.name!r}"
    anew = "Submit it again under another name, with --journal full"
    others = "--evaluation TEXT chooses others."
    if evaluation.status is EvaluationStatus.RUNNING:
        raise UsageError(
            f"{what} is running", remedy="Wait for its end (doteval watch), or cancel it (doteval cancel)."
        )
    if evaluation.status is not EvaluationStatus.SKIPPED and not store.rows.dataset_state(evaluation.id).complete:
        raise UsageError(
            f"the dataset of {what} has not been read to its end",
            remedy="Submit it again, which reads the rest: doteval submit FILE --experiment NAME",
        )
    if evaluation.config.journal is not JournalMode.FULL:
        raise UsageError(
            f"the calls of {what} were not kept: it ran with --journal {evaluation.config.journal}",
            remedy=f"{anew}, which is the default. {others}",
        )
    if evaluation.config.batch_size is not None:
        raise UsageError(f"{what} is a @batch evaluation, whose calls belong to no row of their own", remedy=others)
    for each in chain:
        if store.calls.were_dropped(each.id):
            raise UsageError(
                f"the calls of {each.spec.nodeid} of {each.experiment.name!r} are no longer in the store: "
                "doteval prune --journals has dropped them",
                remedy=f"{anew}. {others}",
            )


def _matched(source: Source, collected: Collected, observer: ProgressObserver) -> dict[EvaluationItem, Evaluation]:
    """The collected evaluations that the experiment has, with those that they rescore.

    They have the same path and name, or the same name if the file is another one.

    Raises UsageError: there are none.
    Raises ChangedError: such an evaluation has other columns than the stored rows.
    """
    for line in collected.skipped:
        observer.note(line)
    by_node = {(each.spec.path, each.name): each for each in source.evaluations}
    matched: dict[EvaluationItem, Evaluation] = {}
    for item in collected.items:
        named = [each for each in source.evaluations if each.name == item.evaluation_name]
        found = by_node.get((item.evaluation_path, item.evaluation_name)) or (named[0] if len(named) == 1 else None)
        if found is None or found in matched.values():
            continue
        if item.spec.batch_size is not None:
            raise UsageError(
                f"{item.evaluation_name} is a @batch evaluation in these files, and the calls of "
                f"{source.experiment.name!r} belong to single rows",
                remedy="Write it with @foreach; or leave it out: doteval rescore ... FILE::NAME, for the others.",
            )
        if set(item.spec.columns) != set(found.spec.columns):
            raise ChangedError(
                f"{item.evaluation_name} takes {', '.join(item.spec.columns)}, and the rows of "
                f"{source.experiment.name!r} have {', '.join(found.spec.columns)}",
                remedy="Rescoring uses the stored rows. Submit the file under another name to read other columns.",
            )
        matched[item] = found
    if not matched:
        names = ", ".join(each.spec.nodeid for each in source.evaluations)
        raise UsageError(
            f"no evaluation in these files is one of {source.experiment.name!r}",
            remedy=f"It has {names}.",
        )
    kept = {each.uid for each in matched.values()}
    for evaluation in source.evaluations:
        if evaluation.uid not in kept:
            observer.note(f"{evaluation.spec.nodeid} is not in these files, and is not rescored")
    return matched
