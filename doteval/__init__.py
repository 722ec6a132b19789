"""doteval: distributed evaluation of language models and other expensive models.

Public names only; everything else is reached through its own module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doteval.core.results import Record, Result, Score, Usage
from doteval.errors import DotEvalError
from doteval.foreach import ForEach, batch, foreach

if TYPE_CHECKING:
    from doteval.local.run import run
    from doteval.providers.handles import ModelHandle, ModelProvider

__version__ = "0.1.0"

__all__ = [
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
    "foreach",
    "run",
]

if not TYPE_CHECKING:

    def __getattr__(name):
        # It brings the store's libraries along, which evaluation files need not wait for.
        if name == "run":
            from doteval.local.run import run

            return run
        if name in ("ModelHandle", "ModelProvider"):
            from doteval.providers import handles

            return getattr(handles, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
