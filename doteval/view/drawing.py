"""Draws figures as SVG images.

An image is a document of its own, with its own colours, and runs no script. There is one for light pages and one for
dark ones, and the page says which is shown: browsers do not always tell an image what the reader prefers (Chromium 156
does not where the preference is emulated).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Written by pygal, and never read.
from xml.etree import ElementTree

from doteval.core.wording import clean
from doteval.view.figures import FigureSeries, ShownFigure

_WIDTH, _HEIGHT = 520, 220
# As many as four labels have room for.
_LABEL_CHARACTERS = 18
# Labels along the axis, at most.
_LABELS = 4


@dataclass(frozen=True, slots=True)
class _Scheme:
    """Colours of the style sheet, light or dark: of texts, of lines behind the values, and of each series."""

    text: str
    rule: str
    series: tuple[str, ...]


_LIGHT = _Scheme("#5c5a53", "#dedacf", ("#2c5f8d", "#a8321f", "#1c6b43"))
_DARK = _Scheme("#a5a39b", "#383a40", ("#82b4e6", "#f2948a", "#6cc999"))


def draw(figure: ShownFigure, *, dark: bool = False) -> bytes:
    """Draw a figure as an SVG document: bars, or points with their intervals.

    dark: whether for a dark page.
    """
    # It takes a tenth of a second to import, which the start of the view does not wait for.
    import pygal
    from pygal.etree import etree
    from pygal.style import Style

    # Where lxml is installed pygal would use it, and its elements keep the namespace elsewhere.
    etree.to_etree()
    has_intervals = any(series.intervals for series in figure.series)
    scheme = _DARK if dark else _LIGHT
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground=scheme.text,
        foreground_strong=scheme.text,
        foreground_subtle=scheme.rule,
        colors=scheme.series,
        font_family="sans-serif",
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=12,
        opacity="1",
        guide_stroke_color=scheme.rule,
        major_guide_stroke_color=scheme.rule,
        guide_stroke_dasharray="none",
        major_guide_stroke_dasharray="none",
    )
    kind: Any = pygal.Line if has_intervals else pygal.StackedBar if figure.is_stacked else pygal.Bar
    chart = kind(
        js=(),
        css=("file://style.css", "file://graph.css"),
        style=style,
        width=_WIDTH,
        height=_HEIGHT,
        margin=6,
        margin_left=24,
        # The last label of a course stands below its last point.
        margin_right=36 if has_intervals else 24,
        show_legend=len(figure.series) > 1,
        legend_at_bottom=True,
        legend_box_size=10,
        spacing=2,
        show_x_guides=False,
        truncate_label=_LABEL_CHARACTERS,
        max_scale=5,
        pretty_print=False,
        no_data_text="",
        value_formatter=lambda value: f"{value:,.4g}",
    )
    chart.x_labels = _axis_labels(figure.ticks or figure.labels)
    bounds = [bound for series in figure.series for pair in series.intervals if pair for bound in pair]
    if bounds:
        values = [value for series in figure.series for value in series.values if value is not None]
        chart.range = (min(*bounds, *values), max(*bounds, *values))
    for series in figure.series:
        chart.add(clean(series.name)[:_LABEL_CHARACTERS], _points(series), allow_interruptions=True)
    # Without a name of its own, the same chart is the same document.
    chart.uuid = "0"
    root: ElementTree.Element = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            # The script would show what the pointer is on; an image runs none. Comments hold the date.
            if not isinstance(child.tag, str) or child.tag.endswith("script"):
                parent.remove(child)
    drawn: bytes = ElementTree.tostring(root, encoding="utf-8")
    return drawn


def _axis_labels(labels: Sequence[str]) -> list[str]:
    """Some of the labels, at even distances, with nothing in between.

    >>> _axis_labels(["a", "b", "c", "d", "e", "f", "g"])
    ['a', '', 'c', '', 'e', '', 'g']
    """
    steps = max(1, min(_LABELS, len(labels)) - 1)
    shown = {round(step * (len(labels) - 1) / steps) for step in range(steps + 1)}
    return [clean(label)[:_LABEL_CHARACTERS] if place in shown else "" for place, label in enumerate(labels)]


def _points(series: FigureSeries) -> list[Any]:
    if not series.intervals:
        return list(series.values)
    return [
        value if bounds is None or value is None else {"value": value, "ci": {"low": bounds[0], "high": bounds[1]}}
        for value, bounds in zip(series.values, series.intervals, strict=True)
    ]
