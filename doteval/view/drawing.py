"""Draws figures as SVG images.

An image is a document of its own: it has its own colours, light or dark as the system is, and runs no script.
"""

from __future__ import annotations

from typing import Any

# Written by pygal, and never read.
from xml.etree import ElementTree

from doteval.core.wording import clean
from doteval.view.figures import FigureSeries, ShownFigure

_WIDTH, _HEIGHT = 520, 220
_LABEL_CHARACTERS = 24
# Labels along the axis, at most.
_LABELS = 4
_COLOURS = ("#2c5f8d", "#a8321f", "#1c6b43")
# The colours of the style sheet in dark mode.
_DARK = (
    "inline: @media (prefers-color-scheme: dark) {"
    " {{ id }} .axis text, {{ id }} .axis text.major, {{ id }} .legend text { fill: #a5a39b !important }"
    " {{ id }} .color-0 { fill: #82b4e6; stroke: #82b4e6 } {{ id }} .color-1 { fill: #f2948a; stroke: #f2948a }"
    " {{ id }} .axis .line, {{ id }} .guide.line { stroke: #383a40 !important } }"
)


def draw(figure: ShownFigure) -> bytes:
    """Draw a figure as an SVG document: bars, or points with their intervals."""
    # It takes a tenth of a second to import, which the start of the view does not wait for.
    import pygal
    from pygal.etree import etree
    from pygal.style import Style

    # Where lxml is installed pygal would use it, and its elements keep the namespace elsewhere.
    etree.to_etree()
    has_intervals = any(series.intervals for series in figure.series)
    style = Style(
        background="transparent",
        plot_background="transparent",
        foreground="#5c5a53",
        foreground_strong="#5c5a53",
        foreground_subtle="#dedacf",
        colors=_COLOURS,
        font_family="sans-serif",
        label_font_size=12,
        major_label_font_size=12,
        legend_font_size=12,
        opacity="1",
        guide_stroke_color="#dedacf",
        major_guide_stroke_color="#dedacf",
        guide_stroke_dasharray="none",
        major_guide_stroke_dasharray="none",
    )
    kind: Any = pygal.Line if has_intervals else pygal.StackedBar if figure.is_stacked else pygal.Bar
    chart = kind(
        js=(),
        css=("file://style.css", "file://graph.css", _DARK),
        style=style,
        width=_WIDTH,
        height=_HEIGHT,
        margin=6,
        margin_left=24,
        margin_right=24,
        show_legend=len(figure.series) > 1,
        legend_at_bottom=True,
        legend_box_size=10,
        spacing=2,
        show_x_guides=False,
        show_minor_x_labels=False,
        truncate_label=_LABEL_CHARACTERS,
        x_labels_major_count=_LABELS,
        max_scale=5,
        pretty_print=False,
        no_data_text="",
        value_formatter=lambda value: f"{value:,.4g}",
    )
    chart.x_labels = [clean(label)[:_LABEL_CHARACTERS] for label in figure.ticks or figure.labels]
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


def _points(series: FigureSeries) -> list[Any]:
    if not series.intervals:
        return list(series.values)
    return [
        value if bounds is None or value is None else {"value": value, "ci": {"low": bounds[0], "high": bounds[1]}}
        for value, bounds in zip(series.values, series.intervals, strict=True)
    ]
