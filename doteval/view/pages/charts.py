"""The charts of an evaluation, each with the table of its values; and the images that the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.errors import NotFoundError
from doteval.view.drawing import draw
from doteval.view.figures import ShownFigure, read_figures
from doteval.view.row_choice import chosen_evaluation
from doteval.view.visit import Page, Visit, progress_key

_MOST_FIGURES = 100
# How often an image asks for its figures, a quarter of a second each: the page has them already, unless the view has
# just started.
_ATTEMPTS = 8


def read(visit: Visit) -> Mapping[str, Any]:
    """Read the page of charts."""
    evaluation = chosen_evaluation(visit)
    visit.live(running=evaluation.status is EvaluationStatus.RUNNING)
    return {
        "evaluation": evaluation,
        "experiment": evaluation.experiment,
        "figures": _figures(visit, evaluation),
    }


def read_image(visit: Visit) -> Mapping[str, Any]:
    """Draw one of the charts."""
    evaluation = chosen_evaluation(visit)
    number = visit.parameters.number("number", 0, least=0, most=_MOST_FIGURES)
    dark = visit.parameters.choice("scheme", ["dark"], "") == "dark"
    # It is another image when it shows something else; the browser then asks anew.
    visit.parameters.text("state")
    for _ in range(_ATTEMPTS):
        figures = _figures(visit, evaluation)
        if figures is not None:
            break
        if visit.problems:
            raise NotFoundError("the chart cannot be drawn", remedy="The page of the charts says why.")
    else:
        raise NotFoundError("the chart is still being computed", remedy="Load the page again in a moment.")
    if number >= len(figures):
        raise NotFoundError(f"{evaluation.spec.nodeid} has {len(figures)} charts", remedy="Load the page again.")
    return {"image": draw(figures[number], dark=dark)}


def _figures(visit: Visit, evaluation: Evaluation) -> tuple[ShownFigure, ...] | None:
    running = evaluation.status is EvaluationStatus.RUNNING
    state = (progress_key(evaluation.counts, running=running), evaluation.finished_at)
    compute = partial(read_figures, evaluation=evaluation)
    return visit.compute("charts", ("figures", evaluation.uid), state, compute, running=running)


page = Page("/charts", "charts.html.jinja", read)
image = Page("/chart", None, read_image)
