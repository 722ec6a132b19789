"""The evaluators under the module name that evaluation files of dotevals import.

Files with ``from doteval.evaluators.base import exact_match`` keep working. New code imports these names from
`doteval.evaluators`. They are defined in the modules of this package, which are all that this one imports.
"""

from doteval.evaluators.decorator import evaluator
from doteval.evaluators.function_calls import ast_evaluation
from doteval.evaluators.json_text import valid_json
from doteval.evaluators.numeric import numeric_match
from doteval.evaluators.text import exact_match

__all__ = ["ast_evaluation", "evaluator", "exact_match", "numeric_match", "valid_json"]
