"""doteval: distributed evaluation of language models and other expensive models.

Public names only; everything else is reached through its own module.
"""

from doteval.errors import DotEvalError
from doteval.foreach import ForEach, batch, foreach
from doteval.results import Record, Result, Score, Usage

__version__ = "0.1.0"

__all__ = ["DotEvalError", "ForEach", "Record", "Result", "Score", "Usage", "__version__", "batch", "foreach"]
