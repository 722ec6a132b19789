"""Draws the charts of a report as SVG that belongs to its page: in the page's fonts, and in its colours, light or dark.

Charts are narrow, so that they are as legible on a telephone as on a wide screen, where several stand side by side.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

# Written by matplotlib, and read only to be rewritten.
from xml.etree import ElementTree

from doteval.analysis.compare import MetricComparison, Verdict
from doteval.analysis.distributions import Histogram, ScoreDistribution, Timeline
from doteval.analysis.figures import figure, signed
from doteval.analysis.history import HistoryStep
from doteval.core.wording import counted, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Pixels.
_WIDTH = 340
_FONT = 11
_LABEL_CHARACTERS = 22
# Worker processes and metrics that a chart shows, at most.
_WORKERS_SHOWN = 24
_METRICS_SHOWN = 24

# Colours that stand for the variables of the page's style sheet.
_INK, _MUTED, _ACCENT, _BAD, _GOOD, _RULE, _WARN, _PAPER = (f"#00000{digit}" for digit in range(1, 9))
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _ACCENT: "var(--accent)",
    _BAD: "var(--bad)",
    _GOOD: "var(--good)",
    _RULE: "var(--rule)",
    _WARN: "var(--warn)",
    _PAPER: "var(--paper)",
}
_VERDICT_COLOURS = {
    Verdict.BETTER: _GOOD,
    Verdict.WORSE: _BAD,
    Verdict.NO_DIFFERENCE: _MUTED,
    Verdict.UNDECIDED: _WARN,
}

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_FONT_STYLE = re.compile(r"font(?:-family)?:[^;]*;?")
_SPACE = re.compile(r"\s+")
_DIGITS = re.compile(r"(?<!\d)(\d+\.\d{2})\d+")

# What one chart of a page refers to must not be found in another.
_numbers = itertools.count(1)


def histogram_chart(found: Histogram, shown: Callable[[float], str], what: str) -> str:
    """Draw the bars of a histogram. `shown` writes an edge, `what` is what is counted."""
    counts, edges = found.counts, found.edges
    label = f"Histogram of {what}: {sum(counts):,} values from {shown(edges[0])} to {shown(edges[-1])}"
    chart, axes = _axes(130)
    axes.bar(range(len(counts)), counts, width=0.9, align="edge", color=_ACCENT)
    _count_axis(axes)
    places = sorted({0, len(counts) // 2, len(counts)})
    axes.set_xticks(places, [shown(edges[place]) for place in places])
    axes.set_xlim(-0.05, len(counts) + 0.05)
    return _svg(chart, label)


def values_chart(found: ScoreDistribution) -> str:
    """Draw a horizontal bar for each value of a score."""
    names = [_label(name) for name, _ in found.values]
    counts = [count for _, count in found.values]
    if found.others:
        names.append("others")
        counts.append(found.others)
    label = f"Values of {found.name}: " + ", ".join(
        f"{name} {count:,}" for name, count in zip(names, counts, strict=True)
    )
    chart, axes = _axes(22 + 22 * len(counts))
    places = range(len(counts))
    colours = [_bar_colour(name) for name in names]
    axes.barh(places, counts, height=0.7, color=colours)
    most, total = max(counts), max(1, sum(counts))
    for place, count in zip(places, counts, strict=True):
        axes.annotate(
            f"{count:,}  {count / total:.0%}",
            (count, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=_INK,
        )
    axes.set_yticks(places, names, color=_INK)
    axes.set_xticks([])
    axes.set_xlim(0, most * 1.35)
    axes.invert_yaxis()
    return _svg(chart, label)


def timeline_chart(found: Timeline) -> str:
    """Draw how many rows ended in each part of a run, those that failed on top."""
    label = f"Rows that ended over {_span(found.seconds)}: {sum(found.done):,} done, {sum(found.failed):,} failed"
    chart, axes = _axes(130)
    places = range(len(found.done))
    axes.bar(places, found.done, width=1.0, align="edge", color=_ACCENT)
    if any(found.failed):
        axes.bar(places, found.failed, width=1.0, align="edge", bottom=found.done, color=_BAD)
    _count_axis(axes)
    _time_axis(axes, found)
    return _svg(chart, label)


def workers_chart(found: Timeline, names: Mapping[int, str]) -> str:
    """Draw a line for each worker process that is darker where more of its rows ended."""
    workers = found.workers[:_WORKERS_SHOWN]
    label = (
        f"When each of {counted(len(found.workers), 'worker process', 'worker processes')} ended rows: "
        + ", ".join(f"{_worker(worker, names)} {sum(counts):,}" for worker, counts in workers)
    )
    chart, axes = _axes(34 + 17 * len(workers))
    most = max(count for _, counts in workers for count in counts) or 1
    for place, (_, counts) in enumerate(workers):
        for part, count in enumerate(counts):
            if count:
                alpha = 0.25 + 0.75 * count / most
                axes.barh(place, 1.0, left=part, height=0.72, color=_ACCENT, alpha=round(alpha, 2))
    axes.set_yticks(range(len(workers)), [_label(_worker(worker, names)) for worker, _ in workers], color=_INK)
    axes.set_ylim(len(workers) - 0.4, -0.6)
    _time_axis(axes, found)
    return _svg(chart, label)


def differences_chart(metrics: Sequence[tuple[tuple[str, str], MetricComparison]]) -> str:
    """Draw the difference of each metric, given by its evaluation and its name, with its interval, and a line at 0."""
    shown = [(name, each, each.difference) for name, each in metrics if each.difference is not None][:_METRICS_SHOWN]
    label = "Differences with 95% intervals: " + ", ".join(
        f"{' '.join(name).strip()} {signed(difference)} ({each.verdict.value.lower()})"
        for name, each, difference in shown
    )
    chart, axes = _axes(40 + 38 * len(shown))
    axes.axvline(0, color=_MUTED, linewidth=1)
    for place, (_, each, difference) in enumerate(shown):
        colour = _VERDICT_COLOURS[each.verdict]
        if each.interval is not None:
            axes.plot([each.interval.low, each.interval.high], [place, place], color=colour, linewidth=2.5)
        axes.plot([difference], [place], marker="o", markersize=7, color=colour)
    axes.set_yticks(range(len(shown)), ["\n".join(filter(None, map(_label, name))) for name, _, _ in shown], color=_INK)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=4)
    return _svg(chart, label)


def history_chart(steps: Sequence[HistoryStep], title: str) -> str:
    """Draw a metric over experiments with its intervals, and mark where it changed by more than chance explains."""
    known = [
        (place, each, each.point.metric.value)
        for place, each in enumerate(steps)
        if each.point.metric.value is not None
    ]
    changed = [each.point.experiment for each in steps if each.is_seen]
    label = (
        f"History of {title} over {counted(len(steps), 'experiment')}, the last {figure(steps[-1].point.metric.value)}"
    )
    if changed:
        label += f"; it changed by more than chance explains at {', '.join(map(_label, changed))}"
    chart, axes = _axes(150)
    axes.plot([place for place, _, _ in known], [value for _, _, value in known], color=_MUTED, linewidth=1)
    for place, step, value in known:
        metric = step.point.metric
        fell = step.is_seen and (step.difference or 0) < 0
        colour = (_BAD if fell else _GOOD) if step.is_seen else _ACCENT
        if step.is_seen:
            axes.axvline(place - 0.5, color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
        if metric.interval is not None:
            axes.plot([place, place], [metric.interval.low, metric.interval.high], color=colour, linewidth=2, alpha=0.5)
        last = place == len(steps) - 1
        # A hollow point ran on other rows than the one before it.
        face = _PAPER if "other rows" in step.notes or "rows not known" in step.notes else colour
        axes.plot([place], [value], marker="o", markerfacecolor=face, markersize=7 if last else 4.5, color=colour)
    axes.locator_params(axis="y", nbins=4)
    axes.grid(axis="y", color=_RULE, linewidth=0.8)
    first, last_step = steps[0].point, steps[-1].point
    form = "%H:%M" if first.started_at.date() == last_step.started_at.date() else "%Y-%m-%d"
    ends = [each.started_at.strftime(form) for each in (first, last_step)]
    axes.set_xticks([0, len(steps) - 1], ends)
    _align_ends(axes)
    axes.margins(x=0.06, y=0.12)
    return _svg(chart, label)


def short_count(number: float) -> str:
    """Write a count for an axis.

    >>> short_count(950), short_count(1500), short_count(2_000_000)
    ('950', '1.5k', '2M')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _axes(height: int) -> tuple[Figure, Axes]:
    # matplotlib takes a moment to import, and only pages need it.
    from matplotlib.figure import Figure

    # A point is a pixel.
    chart = Figure(figsize=(_WIDTH / 72, height / 72), layout="constrained")
    axes = chart.subplots()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.tick_params(colors=_MUTED, labelsize=_FONT, length=0, pad=5)
    axes.set_axisbelow(True)
    return chart, axes


def _count_axis(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.grid(axis="y", color=_RULE, linewidth=0.8)


def _time_axis(axes: Axes, found: Timeline) -> None:
    parts = len(found.done)
    axes.set_xticks([0, parts], ["0", _span(found.seconds)])
    _align_ends(axes)
    axes.set_xlim(0, parts)


def _align_ends(axes: Axes) -> None:
    """Keep the labels of the first and the last tick between them."""
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172_800 else f"{seconds / 86_400:.3g} days"


def _bar_colour(name: str) -> str:
    return {"true": _GOOD, "false": _BAD, "others": _MUTED}.get(name, _ACCENT)


def _worker(worker: int | None, names: Mapping[int, str]) -> str:
    return "no worker process" if worker is None else names.get(worker, f"process {worker}")


def _label(text: str) -> str:
    shown = " ".join(plain(text).split())
    return shown if len(shown) <= _LABEL_CHARACTERS else f"{shown[: _LABEL_CHARACTERS - 1]}…"


def _svg(chart: Figure, label: str) -> str:
    from matplotlib import rc_context
    from matplotlib.text import Text

    written = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        # The browser draws the letters; matplotlib's own font, which measures them, need not have them all.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for artist in chart.findobj(Text):
            assert isinstance(artist, Text)
            # A dollar sign of a label is no formula.
            artist.set_parse_math(False)
        chart.savefig(written, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314 - written by matplotlib
    return _rewritten(root, label)


def _rewritten(root: ElementTree.Element, label: str) -> str:
    """The SVG without what the page has: sizes, fonts, colours; and with names that no other chart has."""
    number = next(_numbers)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    identities = {each.attrib["id"] for each in root.iter() if "id" in each.attrib}
    attributes = " ".join(value for each in root.iter() for value in each.attrib.values())
    referred = identities.intersection(re.findall(r"#([\w-]+)", attributes))
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in referred:
            element.set("id", f"c{number}-{identity}")
        for name, value in list(element.attrib.items()):
            element.set(name, _value(value, referred, number))
        if element.text is not None and not element.text.strip():
            element.text = None
        element.tail = None
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", "".join(character if character.isprintable() else " " for character in plain(label))[:1_000])
    # In HTML, an SVG needs no namespaces.
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        for name in [name for name in element.attrib if name.startswith(f"{{{_XLINK}}}")]:
            element.set(name.removeprefix(f"{{{_XLINK}}}"), element.attrib.pop(name))
    return ElementTree.tostring(root, encoding="unicode")


def _value(value: str, referred: set[str], number: int) -> str:
    for name in referred:
        value = re.sub(rf"#{re.escape(name)}\b", f"#c{number}-{name}", value)
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, variable)
    if "font" in value:
        value = _FONT_STYLE.sub("", value.replace("font-size", "size")).replace("size:", "font-size:").strip()
    return _DIGITS.sub(r"\1", _SPACE.sub(" ", value)).strip()
