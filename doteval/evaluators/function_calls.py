"""The evaluator `ast_evaluation` checks whether a model called the right function with the right arguments.

It follows the rules of the AST evaluation of the Berkeley Function Calling Leaderboard (Patil et al., Gorilla: Large
Language Model Connected with Massive APIs, 2023, arXiv:2305.15334, and
https://gorilla.cs.berkeley.edu/leaderboard.html): the name of the function has to be right, no required argument may
be missing and none may be unknown, and each argument has to have the right type and value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from doteval.core.results import Score
from doteval.core.wording import counted
from doteval.evaluators.decorator import evaluator
from doteval.evaluators.json_text import parse_json
from doteval.metrics import accuracy

Call = tuple[str, Mapping[str, Any]]

# The leaderboard ignores these characters in text, and the case of letters.
_IGNORED = re.compile(r"[ ,./\-_*^]")


@evaluator(metrics=accuracy())
def ast_evaluation(result: Any, expected: Any, schema: Any) -> Score:
    """Whether the function calls in `result` are the expected ones.

    `result`: a Python call expression, ``"f(x=1)"`` or ``"[f(x=1), g(y=2)]"``, or a call as a dict,
    ``{"f": {"x": 1}}``, or a list of these. Nothing in it is executed.

    `expected`: a call as a dict, or a list of calls in any order. The value of an argument may be a list or set of
    alternatives; ``""`` as the value or as an alternative means that the argument may be left out. In text, case,
    spaces and the characters ``,./-_*^`` are ignored.

    `schema`: the description of a function, or a list of them: ``{"name", "parameters": {"properties",
    "required"}}``, or the same below ``"function"``. The types are those of JSON Schema and float, dict, tuple, any;
    any other type is not checked.

    If the value is False, the metadata has the `reason`.

    >>> schema = {"name": "add", "parameters": {"properties": {"x": {"type": "integer"}}, "required": ["x"]}}
    >>> ast_evaluation("add(x=1)", {"add": {"x": [1]}}, schema).value
    True
    """
    reason = _compare(result, expected, schema)
    return Score("ast_evaluation", reason is None, (), {} if reason is None else {"reason": reason})


def _compare(result: Any, expected: Any, schema: Any) -> str | None:
    schemas = {str(one.get("name")): one for one in map(_described, _listed(schema))}
    try:
        calls = _calls(result, schemas)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "the result is not a function call"
    answers = [(name, arguments) for one in _listed(expected) for name, arguments in one.items()]
    if not calls or not answers:
        return "there is no function call to compare"
    if len(calls) != len(answers):
        return f"{counted(len(calls), 'function call')} where {counted(len(answers), 'is', 'are')} expected"
    open_calls = list(calls)
    for answer in answers:
        reasons = [_call_differs(call, answer, schemas.get(answer[0])) for call in open_calls]
        if None not in reasons:
            return reasons[0] if len(answers) == 1 else f"no call of {answer[0]} with the expected arguments"
        del open_calls[reasons.index(None)]
    return None


def _call_differs(call: Call, answer: Call, schema: Mapping[str, Any] | None) -> str | None:
    name, arguments = call
    if name != answer[0]:
        return f"{name} is called where {answer[0]} is expected"
    if schema is None:
        return f"the schema does not describe {name}"
    parameters = schema.get("parameters") or {}
    properties = parameters.get("properties") or {}
    for required in parameters.get("required") or ():
        if required not in arguments:
            return f"the required argument {required} is missing"
    for argument, value in arguments.items():
        if argument not in properties or argument not in answer[1]:
            return f"the argument {argument} is not expected"
        if not _has_type(value, properties[argument]):
            return f"the argument {argument} is {type(value).__name__}, not {properties[argument].get('type')}"
        if not _matches(value, answer[1][argument]):
            return f"the argument {argument} has another value"
    for argument, wanted in answer[1].items():
        if argument not in arguments and "" not in _alternatives(wanted):
            return f"the argument {argument} is missing"
    return None


def _listed(given: Any) -> list[Any]:
    if not given:
        return []
    return [given] if isinstance(given, Mapping) else list(given)


def _described(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    function = schema.get("function")
    return function if isinstance(function, Mapping) else schema


def _calls(result: Any, schemas: Mapping[str, Mapping[str, Any]]) -> list[Call]:
    if isinstance(result, str):
        body = ast.parse(result.strip(), mode="eval").body
        nodes = body.elts if isinstance(body, (ast.List, ast.Tuple)) else [body]
        return [_parsed_call(node, schemas) for node in nodes]
    if isinstance(result, Mapping):
        if result.keys() == {"name", "arguments"} and "name" not in schemas:
            arguments = result["arguments"]
            return [(str(result["name"]), parse_json(arguments) if isinstance(arguments, str) else arguments)]
        if not all(isinstance(arguments, Mapping) for arguments in result.values()):
            raise ValueError("not a function call")
        return list(result.items())
    if isinstance(result, Iterable):
        return [call for one in result for call in _calls(one, schemas)]
    raise ValueError("not a function call")


def _parsed_call(node: ast.expr, schemas: Mapping[str, Mapping[str, Any]]) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError("not a function call")  # noqa: TRY004 - the caller treats all bad text alike
    name = ast.unparse(node.func)
    described = schemas.get(name, {}).get("parameters") or {}
    arguments = dict(zip(described.get("properties") or (), map(ast.literal_eval, node.args), strict=False))
    if len(arguments) < len(node.args) or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("arguments without a name")
    arguments.update((str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in node.keywords)
    return name, arguments


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": _is_number,
    "float": _is_number,
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, (list, tuple)),
    "tuple": lambda value: isinstance(value, (list, tuple)),
    "object": lambda value: isinstance(value, Mapping),
    "dict": lambda value: isinstance(value, Mapping),
    "null": lambda value: value is None,
}


def _has_type(value: Any, described: Mapping[str, Any]) -> bool:
    wanted = described.get("type")
    names = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(name not in _TYPES or _TYPES[name](value) for name in names)


def _alternatives(wanted: Any) -> list[Any]:
    return list(wanted) if isinstance(wanted, (list, set, frozenset, tuple)) else [wanted]


def _matches(value: Any, wanted: Any) -> bool:
    # A list is either a list of alternatives or the one array that is expected.
    if isinstance(wanted, (list, set, frozenset, tuple)) and any(_same(value, one) for one in wanted):
        return True
    return _same(value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return _plain(value) == _plain(wanted)
    if isinstance(value, Mapping) and isinstance(wanted, Mapping):
        return (
            value.keys() <= wanted.keys()
            and all(_matches(entry, wanted[key]) for key, entry in value.items())
            and all(key in value or "" in _alternatives(wanted[key]) for key in wanted)
        )
    if isinstance(value, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return len(value) == len(wanted) and all(map(_same, value, wanted))
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')
