"""The data classes, under the module name that evaluation files of doteval 0.22 import.

Files written for that release keep working with ``from doteval.models import Result, Score``. New code imports
these names from `doteval`. The classes are defined in `doteval.core` and `doteval.metrics`, the only packages
that this one imports.
"""

from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.results import Record, Result, Score
from doteval.metrics import Metric

__all__ = ["Evaluation", "EvaluationStatus", "Metric", "Record", "Result", "Score"]


def __dir__() -> list[str]:
    return sorted(__all__)
