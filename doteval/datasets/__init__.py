"""Datasets: where the rows of an evaluation come from. They are read one at a time.

`open_dataset` makes a `Dataset` of whatever `@foreach` was given: a sequence, a generator, a function, a file, a data
frame, a Hugging Face dataset or its address. `registry` holds datasets by name; installed packages add some under the
entry point group ``doteval.datasets``. May import `doteval.core` and `doteval.errors`.
"""

from doteval.datasets.base import Dataset
from doteval.datasets.opening import open_dataset
from doteval.datasets.registry import available, get_dataset_info, list_available, register, registered
from doteval.datasets.rows import row_values

__all__ = [
    "Dataset",
    "available",
    "get_dataset_info",
    "list_available",
    "open_dataset",
    "register",
    "registered",
    "row_values",
]


def __dir__() -> list[str]:
    return sorted(__all__)
