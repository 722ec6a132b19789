"""The usage of one session fixture: its loads in the worker processes of an experiment, and what it said of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doteval.errors import NotFoundError
from doteval.view.paging import Paging
from doteval.view.visit import Page, Visit

_SHOWN = 100


def read(visit: Visit) -> Mapping[str, Any]:
    """Read the page of a fixture."""
    contents = visit.store.contents
    experiment = visit.store.experiments.find(visit.parameters.required("experiment"))
    fixture = visit.parameters.required("fixture")
    totals = contents.fixture_totals(experiment, fixture)
    paging = Paging.of(visit, totals.loads, _SHOWN)
    visit.parameters.refuse_others()
    if not totals.loads:
        raise NotFoundError(
            f"no worker process of the experiment {experiment.name!r} has loaded a session fixture named {fixture!r}",
            remedy="The page of the experiment lists those that were loaded.",
        )
    running = contents.totals(experiment).is_running
    visit.live(running=running)
    return {
        "experiment": experiment,
        "fixture": fixture,
        "totals": totals,
        "paging": paging,
        "loads": contents.fixture_loads(experiment, fixture, paging.first, _SHOWN),
    }


page = Page("/fixture", "fixture.html.jinja", read)
