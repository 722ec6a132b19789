"""Says where the prices come from that a cost was computed with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from doteval.core.package_prices import PACKAGE, package_prices, package_version

if TYPE_CHECKING:
    from doteval.core.experiments import Experiment
    from doteval.store.store import Store
    from doteval.store.usage import ModelUsage


def price_origin(store: Store, experiment: Experiment, models: Iterable[ModelUsage]) -> dict[str, Any] | None:
    """The version of the price package that the experiment ran with, and how new its prices are.

    None if nothing has a cost, or all has run with releases that had no prices of their own. The day is null if that
    version is not the one that is installed here, since only its data can be read.
    """
    return None if all(model.spent.cost is None for model in models) else price_origin_of(store, experiment)


def price_origin_of(store: Store, experiment: Experiment) -> dict[str, Any] | None:
    """What `price_origin` says of an experiment that has a cost."""
    found = {command.versions.get(PACKAGE) for command in store.provenance.of(experiment) if not command.recomputes}
    versions = sorted(version for version in found if version is not None)
    if not versions:
        return None
    checked = package_prices().checked if versions == [package_version()] else None
    return {"package": PACKAGE, "versions": versions, "checked": None if checked is None else checked.isoformat()}


def price_note(store: Store, experiment: Experiment, models: Iterable[ModelUsage]) -> str | None:
    """The line below a table with what models cost, None if no price was of the package."""
    origin = price_origin(store, experiment, models)
    return None if origin is None else origin_line(origin)


def price_notes(origins: Mapping[str, dict[str, Any] | None]) -> list[str]:
    """The lines below a table with the costs of several experiments: one, or one for each if they differ.

    origins: what `price_origin` says of each, by its name.
    """
    lines = {name: origin_line(origin) for name, origin in origins.items() if origin is not None}
    if len(lines) == len(origins) and len(set(lines.values())) == 1:
        return [*lines.values()][:1]
    return [f"{name}: {line[0].lower()}{line[1:]}" for name, line in lines.items()]


def origin_line(origin: dict[str, Any]) -> str:
    """The line below a table with costs.

    >>> origin_line({"package": "genai-prices", "versions": ["0.2.3"], "checked": "2026-11-03"})
    'Cost: by your own price table where it has the model, else by genai-prices 0.2.3, checked up to 2026-11-03'
    """
    checked = f", checked up to {origin['checked']}" if origin["checked"] else ""
    versions = ", ".join(origin["versions"])
    return f"Cost: by your own price table where it has the model, else by {origin['package']} {versions}{checked}"
