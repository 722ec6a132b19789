"""Renders the templates of pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

import doteval
from doteval.analysis.figures import figures_of, rows_of
from doteval.core.clocks import now
from doteval.core.experiments import Counts
from doteval.core.wording import duration
from doteval.report.templates_environment import template_environment
from doteval.view.parameters import link
from doteval.view.visit import Visit


def render(template: str, contents: Mapping[str, Any], *, visit: Visit | None = None, flower: str | None = None) -> str:
    """Render a template. Pages that are made without a `visit`, such as those of errors, are not live."""
    found = _environment().get_template(template)
    return found.render(**contents, visit=visit, flower=flower)


@cache
def _environment() -> jinja2.Environment:
    environment = template_environment("doteval.view")
    environment.globals |= {"link": link, "rows_of": rows_of, "version": doteval.__version__}
    environment.filters |= {"time": _time, "ago": _ago, "share": _share, "figures": figures_of}
    return environment


def _time(moment: datetime | None) -> Markup | str:
    """A moment as an element that the script turns into the reader's time; without the script it is UTC."""
    if moment is None:
        return "-"
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.isoformat(timespec="milliseconds"), f"{moment:%Y-%m-%d %H:%M}"
    )


def _ago(moment: datetime | None) -> str:
    return "-" if moment is None else f"{duration(max(0.0, now() - moment.timestamp()))} ago"


def _share(counts: Counts) -> float:
    """The finished part of the rows, from 0 to 1."""
    return min(1.0, counts.finished / counts.total) if counts.total else 0.0
