"""Datasets: where the rows come from, read one at a time.

`open_dataset` takes what `@foreach` was given: sequences, generators, functions, files, data frames,
Hugging Face datasets. Packages bring datasets with a name under the entry point group
``doteval.datasets``.
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
