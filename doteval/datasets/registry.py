"""Datasets by name, for ``@foreach.NAME(split)``."""

from __future__ import annotations

from typing import Any

from doteval.core.plugins import Plugins, did_you_mean
from doteval.datasets.well_known import WELL_KNOWN
from doteval.errors import DotEvalError, NotFoundError

plugins = Plugins("doteval.datasets", "dataset")


class UnknownDatasetError(NotFoundError, AttributeError):
    """There is no dataset with that name.

    It is an AttributeError too, since ``foreach.NAME`` looks a dataset up and `hasattr` has to return False then.
    """


def register(name: str, dataset_class: Any) -> None:
    """Give a dataset class a name in this process: ``@foreach.NAME(...)`` makes an instance.

    The class has `columns`, takes the arguments in the brackets, and yields rows.

    >>> class Squares:
    ...     columns = ("n", "square")
    ...
    ...     def __init__(self, split):
    ...         self.last = {"test": 3, "train": 100}[split]
    ...
    ...     def __iter__(self):
    ...         return ((n, n * n) for n in range(self.last))
    >>> register("squares", Squares)
    >>> list(registered("squares")("test"))
    [(0, 0), (1, 1), (2, 4)]
    """
    plugins.register(name, dataset_class)


def registered(name: str) -> Any:
    """The dataset class with that name: registered here, announced by an installed package, with that `name`, built in.

    >>> registered("gsm8k").columns
    ('question', 'reasoning', 'answer')

    Raises UnknownDatasetError (a NotFoundError), which suggests similar names, if there is none; UsageError if the
    package of the dataset cannot be imported.
    """
    if name in plugins:
        return plugins.get(name)
    # A package's entry point may have another name than the class, whose own name users write.
    for announced in plugins.names():
        try:
            dataset_class = plugins.get(announced)
        except DotEvalError:
            # The package of another dataset is broken. A user who asks for that dataset sees the error.
            continue
        if getattr(dataset_class, "name", None) == name:
            return dataset_class
    if name in WELL_KNOWN:
        return WELL_KNOWN[name]
    raise UnknownDatasetError(f"no dataset named {name!r}", remedy=did_you_mean(name, available()))


def available() -> tuple[str, ...]:
    """The names of all datasets, sorted: registered here, announced by installed packages, and built in.

    >>> "gsm8k" in available()
    True
    """
    return tuple(sorted({*plugins.names(), *WELL_KNOWN}))


def list_available() -> list[str]:
    """The same names as `available`, as a list, for files written for doteval 0.22.

    >>> "gsm8k" in list_available()
    True
    """
    return list(available())


def get_dataset_info(name: str) -> dict[str, Any]:
    """The name, splits, columns and num_rows of a dataset, read from its class without making an instance.

    `needs_extra` is the extra of doteval without which its rows cannot be read, None if it needs none.

    >>> get_dataset_info("gsm8k")["splits"], get_dataset_info("gsm8k")["needs_extra"]
    (['train', 'test'], 'hf')

    Raises what `registered` raises.
    """
    dataset_class = registered(name)
    # On the class, a property or method is not the value itself.
    columns = getattr(dataset_class, "columns", ())
    return {
        "name": name,
        "splits": list(getattr(dataset_class, "splits", ())),
        "columns": list(columns) if isinstance(columns, (list, tuple)) else [],
        "num_rows": rows if isinstance(rows := getattr(dataset_class, "num_rows", None), int) else None,
        "needs_extra": getattr(dataset_class, "needs_extra", None),
    }
