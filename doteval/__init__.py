"""doteval: distributed evaluation of language models and other expensive models.

This module holds the names that evaluation files use: `foreach` and `batch` make a function an evaluation,
`Result` and `Score` are what it returns, `run` runs it in a script. `load` reads the results of an experiment,
`compare` says which of two is better.
Evaluators, metrics, datasets and concurrency strategies are in `doteval.evaluators`, `doteval.metrics`,
`doteval.datasets` and `doteval.concurrency`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doteval.core.results import Record, Result, Score, Usage
from doteval.errors import DotEvalError
from doteval.foreach import BatchDecorator as Batch
from doteval.foreach import ForEach, batch, foreach

if TYPE_CHECKING:
    from doteval.local.compare import compare
    from doteval.local.load import load
    from doteval.local.run import run
    from doteval.providers.handles import ModelHandle, ModelProvider

__version__ = "0.2.0"

__all__ = [
    "Batch",
    "DotEvalError",
    "ForEach",
    "ModelHandle",
    "ModelProvider",
    "Record",
    "Result",
    "Score",
    "Usage",
    "__version__",
    "batch",
    "compare",
    "foreach",
    "load",
    "run",
]

if not TYPE_CHECKING:

    def __dir__():
        return sorted(__all__)

    def __getattr__(name):
        # Imported on first use: it imports the libraries of the result store, for which evaluation files need not wait.
        if name == "compare":
            from doteval.local.compare import compare

            return compare
        if name == "load":
            from doteval.local.load import load

            return load
        if name == "run":
            from doteval.local.run import run

            return run
        if name in ("ModelHandle", "ModelProvider"):
            from doteval.providers import handles

            return getattr(handles, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
