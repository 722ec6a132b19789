"""Function calls of a model are compared with the expected ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.evaluators import ast_evaluation

CALCULATE = {
    "name": "calculate",
    "parameters": {
        "type": "dict",
        "properties": {"x": {"type": "integer"}, "y": {"type": "float"}, "label": {"type": "string"}},
        "required": ["x", "y"],
    },
}


def called(result, expected, schema=CALCULATE):
    return ast_evaluation(result, [expected], [schema])


class TestAstEvaluation:
    EXPECTED = {"calculate": {"x": [5], "y": [3], "label": ["sum", ""]}}  # noqa: RUF012

    @pytest.mark.parametrize(
        "result",
        [
            {"calculate": {"x": 5, "y": 3}},
            {"calculate": {"x": 5, "y": 3.0, "label": "SUM"}},
            "calculate(x=5, y=3)",
            "[calculate(y=3, x=5, label='s-u.m')]",
            "calculate(5, 3)",
            [{"calculate": {"x": 5, "y": 3}}],
            {"name": "calculate", "arguments": '{"x": 5, "y": 3}'},
        ],
    )
    def test_the_same_call(self, result):
        score = called(result, self.EXPECTED)
        assert score.value is True, score.metadata

    @pytest.mark.parametrize(
        ("result", "reason"),
        [
            ("compute(x=5, y=3)", "compute is called where calculate is expected"),
            ("calculate(x=5)", "the required argument y is missing"),
            ("calculate(x=5, y=3, z=1)", "the argument z is not expected"),
            ("calculate(x=5.0, y=3)", "the argument x is float, not integer"),
            ("calculate(x=True, y=3)", "the argument x is bool, not integer"),
            ("calculate(x=5, y='3')", "the argument y is str, not float"),
            ("calculate(x=5, y=4)", "the argument y has another value"),
            ("calculate(x=5, y=3, label='product')", "the argument label has another value"),
            ("calculate(x=5, y=3); calculate(x=5, y=3)", "the result is not a function call"),
            ("[calculate(x=5, y=3), calculate(x=5, y=3)]", "2 function calls where 1 is expected"),
            ("calculate(**{'x': 5, 'y': 3})", "the result is not a function call"),
            ("calculate(x=__import__('os'), y=3)", "the result is not a function call"),
            ("calculate", "the result is not a function call"),
            ("I would call calculate", "the result is not a function call"),
            ({"calculate": 5}, "the result is not a function call"),
            (None, "the result is not a function call"),
            (7, "the result is not a function call"),
            ({}, "there is no function call to compare"),
        ],
    )
    def test_another_call(self, result, reason):
        score = called(result, self.EXPECTED)
        assert score.value is False
        assert score.metadata["reason"] == reason

    def test_alternatives_may_be_a_set_or_a_plain_value(self):
        schema = {"name": "pick", "parameters": {"properties": {"color": {"type": "string"}}, "required": ["color"]}}
        assert called({"pick": {"color": "red"}}, {"pick": {"color": {"red", "blue"}}}, schema).value is True
        assert called({"pick": {"color": "green"}}, {"pick": {"color": {"red", "blue"}}}, schema).value is False
        assert called({"pick": {"color": "Red"}}, {"pick": {"color": "red"}}, schema).value is True

    def test_an_expected_argument_without_the_empty_alternative_is_required(self):
        schema = {"name": "greet", "parameters": {"properties": {"name": {"type": "string"}, "age": {"type": "any"}}}}
        assert called({"greet": {"name": "Al"}}, {"greet": {"name": "Al", "age": ""}}, schema).value is True
        assert called({"greet": {"name": "Al"}}, {"greet": {"name": "Al", "age": 30}}, schema).value is False

    def test_arrays_and_objects(self):
        schema = {
            "name": "plot",
            "parameters": {"properties": {"points": {"type": "array"}, "style": {"type": "object"}}},
        }
        expected = {"plot": {"points": [[1, 2]], "style": [{"color": ["red", "blue"], "width": [2, ""]}]}}
        assert called("plot(points=[1, 2], style={'color': 'Blue'})", expected, schema).value is True
        assert called("plot(points=[2, 1], style={'color': 'Blue'})", expected, schema).value is False
        assert called("plot(points=[1, 2], style={'color': 'green'})", expected, schema).value is False
        assert called("plot(points=[1, 2], style={'width': 2})", expected, schema).value is False
        assert called("plot(points=[1, 2], style={'color': 'red', 'more': 1})", expected, schema).value is False
        # The value may also be given without a list of alternatives.
        plain = {"plot": {"points": [1, 2], "style": {"color": "red"}}}
        assert called("plot(points=(1, 2), style={'color': 'red'})", plain, schema).value is True

    def test_several_calls_in_any_order(self):
        other = {"name": "log", "parameters": {"properties": {"n": {"type": "number"}}, "required": ["n"]}}
        expected = [{"calculate": {"x": 1, "y": 2}}, {"log": {"n": 10}}]
        schemas = [CALCULATE, {"type": "function", "function": other}]
        assert ast_evaluation("[log(n=10), calculate(x=1, y=2)]", expected, schemas).value is True
        assert ast_evaluation("[log(n=10), log(n=10)]", expected, schemas).value is False
        assert ast_evaluation("[log(n=10)]", expected, schemas).value is False

    @pytest.mark.parametrize(("expected", "schema"), [([], [CALCULATE]), ([{"calculate": {"x": 1}}], [])])
    def test_a_missing_expectation_or_schema_gives_false(self, expected, schema):
        assert ast_evaluation("calculate(x=1, y=2)", expected, schema).value is False

    def test_a_name_with_a_dot(self):
        schema = {"name": "math.log", "parameters": {"properties": {"n": {"type": "integer"}}}}
        assert called("math.log(8)", {"math.log": {"n": 8}}, schema).value is True

    @given(st.text())
    def test_any_text_gives_a_score(self, text):
        assert called(text, self.EXPECTED).value is False
