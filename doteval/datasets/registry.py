"""Datasets by name: ``@foreach.NAME(split)``."""

from __future__ import annotations

from typing import Any

from doteval.core.plugins import Plugins, did_you_mean
from doteval.errors import DotEvalError, NotFoundError

plugins = Plugins("doteval.datasets", "dataset")


class UnknownDatasetError(NotFoundError, AttributeError):
    """No dataset of that name.

    An AttributeError too, because ``foreach.NAME`` looks one up: `hasattr` and whatever else inspects
    objects must get the answer that they understand.
    """


def register(name: str, dataset_class: Any) -> None:
    """Give a dataset class a name in this process: ``@foreach.NAME(...)`` makes an instance.

    The class has `columns`, takes what the user puts in the brackets, and yields rows.
    """
    plugins.register(name, dataset_class)


def registered(name: str) -> Any:
    """The dataset class of that name: registered, announced by a package, or calling itself so.

    Raises UnknownDatasetError (a NotFoundError) with the nearest names, UsageError if a package's
    dataset cannot be imported.
    """
    if name in plugins:
        return plugins.get(name)
    # The name that users write is the class's own, which a package need not repeat as its entry point.
    for announced in plugins.names():
        try:
            dataset_class = plugins.get(announced)
        except DotEvalError:
            # Another dataset's package is broken: asking for that one says so.
            continue
        if getattr(dataset_class, "name", None) == name:
            return dataset_class
    raise UnknownDatasetError(f"no dataset named {name!r}", remedy=did_you_mean(name, plugins.names()))


def available() -> tuple[str, ...]:
    """The names of all datasets, sorted: registered here and announced by packages."""
    return plugins.names()


def list_available() -> list[str]:
    """The same as `available`, as earlier releases of doteval have it."""
    return list(available())


def get_dataset_info(name: str) -> dict[str, Any]:
    """What a dataset's class says of itself: name, splits, columns and num_rows. Makes no instance.

    Raises as `registered` does.
    """
    dataset_class = registered(name)
    # A property or a method is known only of an instance.
    columns = getattr(dataset_class, "columns", ())
    return {
        "name": name,
        "splits": list(getattr(dataset_class, "splits", ())),
        "columns": list(columns) if isinstance(columns, (list, tuple)) else [],
        "num_rows": rows if isinstance(rows := getattr(dataset_class, "num_rows", None), int) else None,
    }
