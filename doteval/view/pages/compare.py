"""Two experiments or more side by side: verdicts, and the rows that changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from doteval.analysis.compare import MetricComparison, Verdict, power_sentence
from doteval.errors import UsageError
from doteval.report.contents import FlippedRow, ShownRow
from doteval.report.page import comparison_sentences, spending_lines, verdict_sentence
from doteval.report.rows import flipped_rows
from doteval.store import Store
from doteval.store.comparisons import ComparedPair
from doteval.view.comparing import KeptComparison, compare_targets, target_of
from doteval.view.text_differences import TextPart, marked_difference
from doteval.view.visit import Page, Visit

# Experiments beside the baseline, and metrics of all pairs in the table.
_MOST_OTHERS = 8
_METRICS = 400
# Characters of a prompt, and of a response, in which differences are marked.
TEXT = 1_500
_NUMBERS = 10_000


@dataclass(frozen=True, slots=True)
class FlippedCard:
    """A row that changed.

    worse: whether it became worse.
    answers: the name of each side, its index on that side, and its answer with what differs.
    """

    row: ShownRow
    worse: bool
    failed: tuple[bool, bool]
    indexes: tuple[int, int]
    answers: tuple[tuple[str, list[TextPart]], ...]


def read(visit: Visit) -> Mapping[str, Any]:
    """Read a comparison, or what to choose for one."""
    given = visit.parameters
    baseline, others = given.text("a"), list(dict.fromkeys(given.texts("b")))
    chosen = given.number("pair", 0, least=0, most=_NUMBERS), given.number("metric", 0, least=0, most=_NUMBERS)
    is_chosen = given.text("pair") is not None
    if baseline is None:
        baseline, others = _baseline(visit.store, others)
    others = [each for each in others if each != baseline]
    if len(others) > _MOST_OTHERS:
        raise UsageError(
            f"the page compares {_MOST_OTHERS} experiments with a baseline at most, and the URL names {len(others)}"
        )
    contents: dict[str, Any] = {"baseline": baseline, "others": others, "found": None, "chosen": None}
    if baseline is None or not others:
        return {**contents, "targets": None}
    targets = [target_of(visit, each) for each in (baseline, *others)]
    names = [target.text for target in targets]
    found = visit.compute(
        "comparison",
        ("compare", *names),
        tuple(target.state for target in targets),
        partial(compare_targets, targets=names),
        running=any(target.running for target in targets),
    )
    visit.live(running=False)
    contents |= {"targets": targets, "found": found, "power_sentence": power_sentence, "TEXT": TEXT}
    if found is None:
        return contents
    places = list(_places(found))
    place = next((each for each in places if each[:2] == chosen), None) if is_chosen else _first(places)
    if is_chosen and place is None:
        raise UsageError("the URL names a pair of evaluations, or a metric, that the comparison does not have")
    return {
        **contents,
        "places": places[:_METRICS],
        "places_left_out": max(0, len(places) - _METRICS),
        "place": place,
        "cards": [] if place is None else list(_cards(visit.store, place[2], place[3])),
        "verdict_sentence": verdict_sentence,
        "comparison_sentences": comparison_sentences,
        "spending_lines": spending_lines,
    }


Place = tuple[int, int, ComparedPair, MetricComparison]


def _baseline(store: Store, others: Sequence[str]) -> tuple[str | None, list[str]]:
    """The baseline of a comparison that names none: that of the store, or the first of several."""
    found = store.baseline.find()
    if found is not None and found[0].name not in others:
        return found[0].name, list(others)
    if len(others) < 2:
        return None, list(others)
    first = found[0].name if found is not None else others[0]
    return first, [each for each in others if each != first]


def _places(found: KeptComparison) -> Iterator[Place]:
    for number, pair in enumerate(found.pairs):
        for place, metric in enumerate(pair.comparison.metrics):
            yield number, place, pair, metric


def _first(places: Sequence[Place]) -> Place | None:
    """The first metric that has changed rows, one that became worse before the others."""
    changed = [place for place in places if place[3].changed]
    return next((place for place in changed if place[3].verdict is Verdict.WORSE), changed[0] if changed else None)


def _cards(store: Store, pair: ComparedPair, metric: MetricComparison) -> Iterator[FlippedCard]:
    base, other = pair.pair.baseline, pair.pair.other
    names = (base.experiment.name, other.experiment.name)
    if names[0] == names[1]:
        names = (base.name, other.name)
    rows = list(flipped_rows(store, pair.pair, metric, names))
    for row in sorted(rows, key=lambda each: not _became_worse(each, metric)):
        yield FlippedCard(
            row.row,
            _became_worse(row, metric),
            row.change.failed,
            (row.change.baseline_index, row.change.index),
            _answers(row.row),
        )


def _became_worse(row: FlippedRow, metric: MetricComparison) -> bool:
    return (row.change.value < row.change.baseline) == (metric.better == "higher")


def _answers(row: ShownRow) -> tuple[tuple[str, list[TextPart]], ...]:
    texts = [(name, answer.cut(TEXT)) for name, answer in row.answers]
    if len(texts) != 2:
        return tuple((name, [TextPart(text, differs=False)]) for name, text in texts)
    (first, before), (second, after) = texts
    old, new = marked_difference(before, after)
    return (first, old), (second, new)


page = Page("/compare", "compare.html.jinja", read)
