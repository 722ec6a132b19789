"""Turns the scores of inspect-ai into doteval's.

inspect-ai's metrics take a value for a number by rules of their own: C, I, P and N stand for correct, incorrect,
partly correct and no answer. A scorer may return several values, as a mapping or a list; each becomes a score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from doteval.core.results import Score
from doteval.importing.logs import LogFigure, Remarks, mapping

# The metrics that doteval computes too. Standard errors are not among them: every mean has an interval here.
_METRICS = {"accuracy": "accuracy", "mean": "mean", "std": "std"}
# Those that take values for numbers by inspect-ai's rules, so that doteval may do so too.
_OF_NUMBERS = frozenset({*_METRICS, "stderr", "bootstrap_stderr", "var", "grouped"})
_ERRORS_OF_MEANS = frozenset({"stderr", "bootstrap_stderr"})

_GRADES: Mapping[str, bool | float] = {"C": True, "I": False, "P": 0.5, "N": False}
_WORDS = {"yes": True, "true": True, "no": False, "false": False}


@dataclass(frozen=True, slots=True)
class ScorerMetrics:
    """The metrics of each scorer and, where they differ, of each of its values, by inspect-ai's names.

    by_scorer: empty for a log that names none; every value is then taken for a number.
    """

    by_scorer: Mapping[str, Sequence[str]] = field(default_factory=dict)
    by_value: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> ScorerMetrics:
        """Read what the head of a log says of its scorers, or else what its results show."""
        by_scorer: dict[str, list[str]] = {}
        by_value: dict[tuple[str, str], list[str]] = {}
        for scorer in _mappings(mapping(header.get("eval")).get("scorers")):
            name, metrics = str(scorer.get("name")), scorer.get("metrics")
            known = by_scorer.setdefault(name, [])
            # A list of metrics, whose members may be mappings from the name of a value to its metrics.
            for each in metrics if isinstance(metrics, list) else [metrics]:
                if isinstance(each, dict) and not isinstance(each.get("name"), str):
                    for value, of_value in each.items():
                        names = by_value.setdefault((name, value), [])
                        names += [_short(member.get("name")) for member in _mappings(of_value)]
                elif isinstance(each, dict):
                    known.append(_short(each["name"]))
        for result in _mappings(mapping(header.get("results")).get("scores")):
            scorer_name, name = str(result.get("scorer")), str(result.get("name"))
            names = [_short(metric) for metric in mapping(result.get("metrics"))]
            if scorer_name == name:
                by_scorer.setdefault(name, names)
            else:
                by_scorer.setdefault(scorer_name, [])
                by_value.setdefault((scorer_name, name), names)
        return cls(by_scorer, by_value)

    def of(self, scorer: str, value: str | None) -> Sequence[str] | None:
        """Return the names of the metrics of a scorer's value, None if the log does not name any."""
        if value is not None:
            found = self.by_value.get((scorer, value)) or self.by_value.get((scorer, "*"))
            if found:
                return found
        return self.by_scorer.get(scorer) or None


def scores_of(scored: Mapping[str, Any], metrics: ScorerMetrics, remarks: Remarks) -> Iterator[Score]:
    """Yield the scores of a sample, in doteval's form. Values that were not scored are left out, and counted.

    >>> [(s.name, s.value) for s in scores_of({"match": {"value": "C"}}, ScorerMetrics(), Remarks())]
    [('match', True)]
    """
    taken: set[str] = set()
    for scorer, score in scored.items():
        if not isinstance(score, dict) or "value" not in score:
            remarks.note(f"scores of {scorer} without a value")
            continue
        about = dict(mapping(score.get("metadata")))
        about |= {name: score[name] for name in ("answer", "explanation", "reason") if score.get(name) is not None}
        if score.get("history"):
            # Values that somebody has edited since; the last one counts.
            about["history"] = score["history"]
        for part, value in _parts(score["value"]):
            named = metrics.of(scorer, part)
            converted = _converted(value, named)
            if converted is None or (isinstance(converted, float) and math.isnan(converted)):
                remarks.note(f"samples without a value of {score_name(scorer, part)}")
                continue
            name = score_name(scorer, part)
            while name in taken:
                name += "_"
            taken.add(name)
            kept = about if converted is value or isinstance(value, (bool, int, float)) else {**about, "value": value}
            yield Score(name, converted, _doteval_metrics(named, value, converted), kept)


def score_name(scorer: str, part: str | None) -> str:
    """Return the name of a score: that of the scorer, with the name of the value if it gives several.

    >>> score_name("match", None), score_name("judge", "tone")
    ('match', 'judge_tone')
    """
    return scorer if part is None else f"{scorer}_{part}"


def figures_of(header: Mapping[str, Any], reducer: str | None) -> list[LogFigure]:
    """Return the metrics in the head of a log, of its first reducer where it has several, without standard errors.

    reducer: as inspect-ai names it.
    """
    found = []
    for result in _mappings(mapping(header.get("results")).get("scores")):
        if reducer is not None and result.get("reducer") not in (None, reducer):
            continue
        scorer, name = str(result.get("scorer")), str(result.get("name"))
        score = score_name(scorer, None if scorer == name else name)
        for metric, measured in mapping(result.get("metrics")).items():
            value = mapping(measured).get("value")
            if _short(metric) not in _ERRORS_OF_MEANS and isinstance(value, (int, float)) and math.isfinite(value):
                found.append(LogFigure(score, _short(metric), float(value)))
    return found


def _parts(value: Any) -> Iterator[tuple[str | None, Any]]:
    if isinstance(value, dict):
        yield from ((str(name), member) for name, member in value.items())
    elif isinstance(value, list):
        yield from ((str(place), member) for place, member in enumerate(value))
    else:
        yield None, value


def _converted(value: Any, metrics: Sequence[str] | None) -> Any:
    """The value as inspect-ai's metrics take it; a text stays one if they do not take it for a number."""
    if not isinstance(value, str):
        return value
    if metrics is not None and _OF_NUMBERS.isdisjoint(metrics):
        return value
    if value in _GRADES:
        return _GRADES[value]
    if value.lower() in _WORDS:
        return _WORDS[value.lower()]
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _doteval_metrics(metrics: Sequence[str] | None, value: Any, converted: Any) -> list[str]:
    if isinstance(converted, str):
        return []
    if metrics is None:
        return ["accuracy" if isinstance(value, (bool, str)) else "mean"]
    known = [_METRICS[metric] for metric in dict.fromkeys(metrics) if metric in _METRICS]
    # A metric that only inspect-ai knows is not computed here; the mean is, under its own name.
    return known or ["mean"]


def _short(metric: Any) -> str:
    """The name of a metric without its package: ``accuracy`` for ``inspect_ai/accuracy``."""
    return str(metric).rpartition("/")[2]


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
