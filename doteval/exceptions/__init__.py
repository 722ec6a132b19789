"""The errors, under the module name and the class names that evaluation files of doteval 0.22 import.

New code imports them from `doteval.errors`, the only module that this package imports. Where an old class has
another name now, the old name is the class that doteval raises in its place: ``except ExperimentNotFoundError``
catches the NotFoundError of a missing experiment.
"""

from doteval.errors import DatasetError, DotEvalError, InvalidResultError, NotFoundError, StoreError, UsageError

ConfigurationError = UsageError
DatasetNotFoundError = NotFoundError
EvaluationNotFoundError = NotFoundError
ExperimentExistsError = UsageError
ExperimentNotFoundError = NotFoundError
PluginError = UsageError
PluginLoadError = UsageError
PluginNotFoundError = NotFoundError
StorageError = StoreError

__all__ = [
    "ConfigurationError",
    "DatasetError",
    "DatasetNotFoundError",
    "DotEvalError",
    "EvaluationNotFoundError",
    "ExperimentExistsError",
    "ExperimentNotFoundError",
    "InvalidResultError",
    "PluginError",
    "PluginLoadError",
    "PluginNotFoundError",
    "StorageError",
]


def __dir__() -> list[str]:
    return sorted(__all__)
