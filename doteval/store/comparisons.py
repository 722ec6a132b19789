"""Compares stored evaluations: finds those that belong together, reads them, and says how else they differ.

It is imported only where something is compared, since the arrays take numpy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from doteval.analysis.compare import (
    Comparison,
    EvaluationComparison,
    MissingEvaluation,
    TestedEvaluation,
    compare_evaluations,
    conclude,
    evaluation_regressions,
)
from doteval.analysis.score_arrays import EvaluationArrays
from doteval.analysis.thresholds import MissedThreshold, short_names
from doteval.core.experiments import Evaluation, Experiment
from doteval.core.package_prices import PACKAGE as PRICES
from doteval.core.plugins import did_you_mean
from doteval.core.provenance import Provenance
from doteval.core.results import Usage
from doteval.core.wording import listed
from doteval.errors import NotFoundError, UsageError
from doteval.store.baseline import BASELINE
from doteval.store.engine import Database
from doteval.store.score_arrays import RESULTS_AT_ONCE, mean_row_seconds, read_all_arrays
from doteval.store.store import Store


@dataclass(frozen=True, slots=True)
class Selection:
    """An experiment with those of its evaluations that were asked for.

    named: whether evaluations were named, as in ``NAME::EVALUATION``.
    """

    experiment: Experiment
    evaluations: tuple[Evaluation, ...]
    named: bool


@dataclass(frozen=True, slots=True)
class EvaluationPair:
    """Two evaluations to compare."""

    baseline: Evaluation
    other: Evaluation


@dataclass(frozen=True, slots=True)
class Matched:
    """The evaluations that belong together, those that only the baseline has, and those that only others have."""

    pairs: tuple[EvaluationPair, ...]
    missing: tuple[MissingEvaluation, ...]
    only_others: tuple[Evaluation, ...]


@dataclass(frozen=True, slots=True)
class Spending:
    """The usage of the results of an evaluation, summed over its models, and the mean time of a row."""

    usage: Usage
    models: tuple[str, ...]
    row_seconds: float | None


@dataclass(frozen=True, slots=True)
class ComparisonOptions:
    """How to compare; see `compare_evaluations` and `conclude`.

    cluster: the column whose value says to which cluster a row belongs.
    key: the columns of the baseline and of the others by which rows are paired; None for the keys that are stored.
    """

    cluster: str | None = None
    key: tuple[str, str] | None = None
    max_drop: float | None = None
    scores: Collection[str] = ()
    lower_is_better: Collection[str] = ()
    changed_rows: int = 0


def select_evaluations(store: Store, target: str, contains: str | None = None) -> Selection:
    """The experiment and evaluations that ``NAME`` or ``NAME::EVALUATION`` names.

    EVALUATION may leave out the file, the class and the parameters, so that it may be several. NAME may be the word
    ``baseline``: see `doteval.store.baseline.Baseline.named`.

    contains: only evaluations whose ``file::name`` contains this.

    Raises NotFoundError: there is no such experiment, or it has no such evaluation.
    Raises UsageError: ``baseline`` can mean two experiments.
    """
    experiment, wanted = _experiment(store, target)
    evaluations = store.evaluations.of(experiment)
    chosen = [each for each in evaluations if contains is None or contains in each.spec.nodeid]
    if wanted is not None:
        # The exact name first: eval_x[a] is a part of no other name, but eval_x is one of eval_x[a].
        exact = [each for each in chosen if wanted in (each.spec.nodeid, each.name)]
        chosen = exact or [each for each in chosen if wanted in short_names(each.name)]
    if not chosen:
        known = listed([each.spec.nodeid for each in evaluations])
        raise NotFoundError(
            f"the experiment {experiment.name!r} has no evaluation {wanted or contains!r}"
            if evaluations
            else f"the experiment {experiment.name!r} has no evaluations",
            remedy=f"It has {known}." if known else "Run its evaluations first.",
        )
    return Selection(experiment, tuple(chosen), wanted is not None)


def _experiment(store: Store, target: str) -> tuple[Experiment, str | None]:
    names = {overview.experiment.name for overview in store.experiments.overviews()} if "::" in target else set()
    parts = target.split("::")
    for count in range(len(parts), 0, -1):
        name = "::".join(parts[:count])
        if name in names:
            return store.experiments.find(store.baseline.named(name)), "::".join(parts[count:]) or None
    return store.experiments.find(store.baseline.named(parts[0])), "::".join(parts[1:]) or None


def match_evaluations(baseline: Selection, others: Sequence[Selection]) -> Matched:
    """The evaluations of the same file and name, or of the same name where the file was moved.

    Where one evaluation was named on each side, these two are compared, whatever their names are.

    Raises NotFoundError: no evaluation belongs to one of the baseline.
    """
    pairs: list[EvaluationPair] = []
    missing: list[MissingEvaluation] = []
    only: list[Evaluation] = []
    for other in others:
        both = (baseline, other)
        if all(len(side.evaluations) == 1 for side in both) and any(side.named for side in both):
            pairs.append(EvaluationPair(baseline.evaluations[0], other.evaluations[0]))
            continue
        found = _counterparts(baseline.evaluations, other.evaluations)
        pairs += [EvaluationPair(each, found[each.id]) for each in baseline.evaluations if each.id in found]
        missing += [
            MissingEvaluation(other.experiment.name, each.spec.nodeid)
            for each in baseline.evaluations
            if each.id not in found
        ]
        taken = {each.id for each in found.values()}
        only += [each for each in other.evaluations if each.id not in taken]
    if not pairs:
        names = [listed([each.name for each in side.evaluations]) for side in (baseline, *others)]
        example = f"{baseline.experiment.name}::{baseline.evaluations[0].name}"
        raise NotFoundError(
            f"no evaluations of the same name: {' | '.join(names)}",
            remedy=f"Name the evaluations to compare, as in {example}.",
        )
    # All that is compared with one evaluation comes together, so that it is read once.
    order = {each.id: place for place, each in enumerate(baseline.evaluations)}
    pairs.sort(key=lambda pair: order[pair.baseline.id])
    return Matched(tuple(pairs), tuple(missing), tuple(only))


def _counterparts(of: Sequence[Evaluation], among: Sequence[Evaluation]) -> dict[int, Evaluation]:
    """The evaluations that belong to those of a baseline, by the ids of these."""
    found: dict[int, Evaluation] = {}
    same: Sequence[Callable[[Evaluation], str]] = (lambda each: each.spec.nodeid, lambda each: each.name)
    for name_of in same:
        taken = {each.id for each in found.values()}
        left: dict[str, list[Evaluation]] = {}
        for each in among:
            if each.id not in taken:
                left.setdefault(name_of(each), []).append(each)
        times = Counter(map(name_of, of))
        for each in of:
            named = left.get(name_of(each), ())
            if each.id not in found and len(named) == 1 and times[name_of(each)] == 1:
                found[each.id] = named[0]
    return found


def compare_pairs(store: Store, matched: Matched, options: ComparisonOptions) -> Comparison:
    """Compare evaluations row by row. Two of them are in memory at a time, or several small ones.

    Raises UsageError: a row does not have the column to cluster or to pair by, or two rows have one key.
    Raises NotFoundError: no evaluation has one of the scores.
    """
    known: dict[str, None] = {}
    tested = list(_tested(store._database, matched.pairs, options, known))
    check_scores((*options.scores, *options.lower_is_better), known, "no evaluation of the baseline has")
    return conclude(tested, matched.missing, max_drop=options.max_drop)


def check_scores(names: Iterable[str], known: Collection[str], nobody_has: str) -> None:
    """Check that the scores that a user names are known.

    Raises NotFoundError: one is not.
    """
    for name in names:
        if name not in known:
            raise NotFoundError(f"{nobody_has} a score {name!r}", remedy=did_you_mean(name, known))


def _tested(
    database: Database, pairs: Sequence[EvaluationPair], options: ComparisonOptions, known: dict[str, None]
) -> Iterator[TestedEvaluation]:
    """Test pairs of evaluations in their order. The names of the baseline's scores are added to `known`."""
    keys = options.key or (None, None)
    baselines: dict[int, EvaluationArrays] = {}
    for batch in _batches(pairs):
        wanted = {pair.baseline.id: pair.baseline for pair in batch}
        # What was compared with other evaluations just now need not be read again.
        baselines = {id_: arrays for id_, arrays in baselines.items() if id_ in wanted}
        missing = [evaluation for id_, evaluation in wanted.items() if id_ not in baselines]
        baselines |= read_all_arrays(database, missing, options.cluster, keys[0])
        others = read_all_arrays(
            database, {pair.other.id: pair.other for pair in batch}.values(), options.cluster, keys[1]
        )
        for pair in batch:
            baseline = baselines[pair.baseline.id]
            known |= dict.fromkeys(baseline.scores)
            yield compare_evaluations(
                baseline,
                others[pair.other.id],
                scores=options.scores,
                lower_is_better=options.lower_is_better,
                changed_rows=options.changed_rows,
            )


def _batches(pairs: Sequence[EvaluationPair]) -> Iterator[list[EvaluationPair]]:
    """Pairs whose evaluations may be in memory together: one pair, or several with few results."""
    batch: list[EvaluationPair] = []
    results = 0
    for pair in pairs:
        # How many rows an evaluation will have is not known while its dataset is read.
        totals = (side.counts.total for side in (pair.baseline, pair.other))
        size = sum(RESULTS_AT_ONCE if total is None else total for total in totals)
        if batch and results + size > RESULTS_AT_ONCE:
            yield batch
            batch, results = [], 0
        batch.append(pair)
        results += size
    yield batch


def spending_of(store: Store, evaluations: Collection[Evaluation]) -> dict[int, Spending]:
    """Return the usage of the results of evaluations, by their ids."""
    found: dict[int, Spending] = {}
    seconds = mean_row_seconds(store._database, [each.id for each in evaluations])
    groups: dict[int, dict[str, list[Usage]]] = {}
    for evaluation in evaluations:
        of = evaluation.experiment
        if of.id not in groups:
            groups[of.id] = {
                group.name: [model.usage for model in group.models] for group in store.usage.by_evaluation(of)
            }
        used = groups[of.id].get(evaluation.spec.nodeid, [])
        found[evaluation.id] = Spending(
            sum(used, Usage("")),
            tuple(dict.fromkeys(usage.model for usage in used)),
            seconds.get(evaluation.id),
        )
    return found


def differences(
    pair: EvaluationPair, spending: Mapping[int, Spending], commands: Mapping[int, Sequence[Provenance]]
) -> list[str]:
    """Say how the code, the models and the versions of two evaluations differ, in sentences.

    commands: those that began and continued each experiment, by its id.
    """
    found = []
    before, after = pair.baseline.spec.fingerprint, pair.other.spec.fingerprint
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    if changed:
        found.append(f"the code differs: {', '.join(changed)}")
    if pair.baseline.spec.columns != pair.other.spec.columns:
        columns = [", ".join(side.spec.columns) for side in (pair.baseline, pair.other)]
        found.append(f"the columns differ: {columns[0]} | {columns[1]}")
    hashes = [side.rows_hash for side in (pair.baseline, pair.other) if side.config.imported_from is not None]
    if len(hashes) == 2 and None not in hashes and hashes[0] != hashes[1]:
        # The keys of imported rows are names, not hashes of their values.
        found.append("the datasets differ: rows that are paired may hold other values")
    if pair.baseline.config.reducer != pair.other.config.reducer:
        reducers = [side.config.reducer or "mean" for side in (pair.baseline, pair.other)]
        found.append(f"the samples of a row are reduced differently: {reducers[0]} | {reducers[1]}")
    rescored = [side for side in (pair.baseline, pair.other) if side.config.rescoring is not None]
    for side in rescored:
        assert side.config.rescoring is not None
        found.append(
            f"{side.experiment.name!r} was rescored from {side.config.rescoring.experiment!r}, with the replies of "
            "models that were recorded there"
        )
    models = [", ".join(sorted(spending[side.id].models)) or "none" for side in (pair.baseline, pair.other)]
    # What a rescored evaluation has replayed is no usage of it.
    if models[0] != models[1] and not rescored:
        found.append(f"the models differ: {models[0]} | {models[1]}")
    versions = [_versions(commands.get(side.experiment.id, ())) for side in (pair.baseline, pair.other)]
    # Prices change nothing in what rows do.
    for name in sorted({*versions[0], *versions[1]} - {PRICES}):
        # Of experiments of older releases, and of packages that are not installed, no version is known.
        known = [", ".join(sorted(side.get(name, ()))) for side in versions]
        if all(known) and known[0] != known[1]:
            found.append(f"the versions of {name} differ: {known[0]} | {known[1]}")
    return found


def _versions(commands: Sequence[Provenance]) -> dict[str, set[str]]:
    """The versions that the rows of an experiment ran with, by package."""
    found: dict[str, set[str]] = {}
    for command in commands:
        if command.recomputes:
            continue
        for name, version in command.versions.items():
            found.setdefault(name, set()).add(version)
    return found


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """A comparison with its evaluations, how else they differ, and what they took."""

    comparison: EvaluationComparison
    pair: EvaluationPair
    differences: list[str]
    baseline_spending: Spending
    spending: Spending


def compared(store: Store, matched: Matched, comparison: Comparison) -> list[ComparedPair]:
    """Join the comparison of each pair of evaluations with the evaluations, in the order of the baseline."""
    sides = [side for pair in matched.pairs for side in (pair.baseline, pair.other)]
    spending = spending_of(store, sides)
    commands = {
        of.id: store.provenance.of(of) for of in {side.experiment.id: side.experiment for side in sides}.values()
    }
    return [
        ComparedPair(
            found,
            pair,
            [*found.differences, *differences(pair, spending, commands)],
            spending[pair.baseline.id],
            spending[pair.other.id],
        )
        for found, pair in zip(comparison.evaluations, matched.pairs, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class BaselineCheck:
    """Evaluations held against a baseline: why they must not pass; nothing if they may.

    baseline: what they were compared with, as the user named it, with the experiment that the word ``baseline`` meant.
    comparison: None if the baseline has none of the evaluations.
    """

    missed: tuple[MissedThreshold, ...]
    baseline: str
    comparison: Comparison | None = None


def check_baseline(store: Store, baseline: str, experiment: str | None) -> None:
    """Check that evaluations can be held against a baseline, before anything is spent.

    experiment: the name of the experiment that they belong to; None if it has none yet.

    Raises NotFoundError: there is no such baseline.
    Raises UsageError: it is the experiment itself.
    """
    base = select_evaluations(store, baseline)
    if base.experiment.name == experiment and not base.named:
        raise UsageError(
            f"--fail-if-worse {baseline} would compare {experiment!r} with itself",
            remedy="Name another baseline, or give the experiment another name.",
        )


def check_not_worse(
    store: Store, baseline: str, evaluations: Sequence[Evaluation], options: ComparisonOptions, *, strict: bool = False
) -> BaselineCheck:
    """Hold evaluations of one experiment against a baseline.

    An evaluation that the baseline does not have cannot be judged, and does not pass. Neither does one that is the
    baseline itself.

    This is ``--fail-if-worse BASELINE`` of every command; see `doteval.analysis.compare.regressions`.

    baseline: an experiment, or some of its evaluations, as `select_evaluations` takes it.

    Raises NotFoundError: there is no such experiment, or it has none of these evaluations.
    """
    base = select_evaluations(store, baseline)
    shown = f"{baseline}, which is {base.experiment.name}" if baseline == BASELINE != base.experiment.name else baseline
    now = Selection(evaluations[0].experiment, tuple(evaluations), named=False)
    # An experiment that runs only some of the evaluations is compared in these.
    names = {each.name for each in evaluations}
    shared = tuple(each for each in base.evaluations if each.name in names)
    unknown, comparison = tuple(evaluations), None
    missed: list[tuple[str, Evaluation | None]] = []
    if shared or (base.named and len(base.evaluations) == len(evaluations) == 1):
        matched = match_evaluations(Selection(base.experiment, shared or base.evaluations, base.named), [now])
        comparison, unknown = compare_pairs(store, matched, options), matched.only_others
        missed += [(f"{each.experiment} has no evaluation {each.evaluation}", None) for each in comparison.missing]
        for found, pair in zip(comparison.evaluations, matched.pairs, strict=True):
            missed += [(failure, pair.other) for failure in evaluation_regressions(found, strict=strict)]
            if pair.baseline.id == pair.other.id:
                missed.append((f"{pair.other.name} is the baseline itself", pair.other))
    missed = [(f"{each.name} is not among the evaluations of {shown}", each) for each in unknown] + missed
    return BaselineCheck(
        tuple(
            MissedThreshold(f"{failure} (--fail-if-worse {shown})", None if each is None else each.spec.nodeid)
            for failure, each in missed
        ),
        shown,
        comparison,
    )
