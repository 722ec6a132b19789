"""Evaluators: what each says of a row, and what `@evaluator` makes of a function."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import doteval.evaluators
from doteval.encoding import encode
from doteval.errors import InvalidResultError, NotFoundError, UsageError
from doteval.evaluators import (
    ast_evaluation,
    available,
    choice_match,
    close_to,
    contains,
    evaluator,
    exact_match,
    find,
    json_match,
    llm_judge,
    numeric_match,
    regex_match,
    register,
    valid_json,
)
from doteval.evaluators import base as evaluators_base
from doteval.metrics import accuracy, mean
from doteval.results import Score

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class TestEvaluatorDecorator:
    def test_a_value_becomes_a_score_that_keeps_the_arguments(self):
        @evaluator(metrics=accuracy())
        def at_least(answer, expected, threshold=0.5):
            return answer >= threshold

        score = at_least(0.7, None, threshold=0.6)
        assert score == Score("at_least", True, score.metrics, {"answer": 0.7, "expected": None, "threshold": 0.6})
        assert score.metric_names == ("accuracy",)

    def test_name_renames_the_score(self):
        assert exact_match(1, 1, name="same").name == "same"
        assert exact_match(1, 1, name=None).name == "exact_match"

    @pytest.mark.parametrize("make", [lambda: evaluator, lambda: evaluator()])
    def test_bare_and_called(self, make):
        @make()
        def right(answer):
            return answer == 42

        assert right(42).value is True
        assert right(42).metric_names == ("accuracy",)

    @pytest.mark.parametrize(
        ("metrics", "names"),
        [
            (mean(), ("mean",)),
            (mean, ("mean",)),
            ("mean", ("mean",)),
            ([accuracy(), mean], ("accuracy", "mean")),
            ([], ()),
        ],
    )
    def test_metrics_made_or_not_or_by_name(self, metrics, names):
        score = evaluator(metrics=metrics)(lambda answer: answer)(1)
        assert score.metric_names == names

    def test_async_functions(self):
        @evaluator(metrics=mean())
        async def later(answer):
            return answer

        assert inspect.iscoroutinefunction(later)
        score = asyncio.run(later(3, name="soon"))
        assert (score.name, score.value, score.metadata) == ("soon", 3, {"answer": 3})

    def test_a_plain_function_in_front_of_an_async_one(self):
        async def later(answer):
            return answer

        assert asyncio.run(evaluator(lambda answer: later(answer))(3)).value == 3

    def test_methods(self):
        class Judge:
            limit = 3

            @evaluator
            def below(self, answer):
                return answer < self.limit

        score = Judge().below(2)
        assert (score.name, score.value, score.metadata) == ("below", True, {"answer": 2})

    def test_another_evaluators_score_is_taken_over(self):
        @evaluator
        def trimmed(answer, expected):
            return exact_match(answer.strip(), expected)

        @evaluator(metrics=mean())
        def averaged(answer, expected):
            return exact_match(answer, expected)

        assert trimmed(" a ", "a").name == "trimmed"
        assert trimmed(" a ", "a").value is True
        assert trimmed(" a ", "a").metric_names == ("accuracy",)
        assert averaged("a", "a").metric_names == ("mean",)

    def test_arguments_that_cannot_be_stored_do_not_fail_the_row(self):
        class Client:
            pass

        @evaluator
        def judged(answer, client):
            return True

        score = judged([1, {"a": (2,)}], Client())
        assert score.metadata["answer"] == [1, {"a": (2,)}]
        assert score.metadata["client"].endswith("Client>")
        encode(dict(score.metadata))

    def test_the_signature_shows_name(self):
        signature = inspect.signature(exact_match)
        assert list(signature.parameters) == ["result", "expected", "name"]
        assert exact_match.__doc__.startswith("Whether")

    def test_a_parameter_called_name_is_refused(self):
        with pytest.raises(UsageError, match="parameter called 'name'"):

            @evaluator
            def named(answer, name):
                return True

    def test_numpy_scalars_become_plain_values(self):
        numpy = pytest.importorskip("numpy")
        assert type(evaluator(lambda answer: numpy.bool_(True))(1).value) is bool
        assert type(evaluator(lambda answer: numpy.float32(0.5))(1).value) is float

    def test_errors_of_the_function_are_the_rows(self):
        @evaluator
        def fails(answer):
            raise KeyError("no")

        with pytest.raises(KeyError):
            fails(1)


class TestExactMatch:
    @pytest.mark.parametrize(
        ("result", "expected", "value"),
        [
            ("1", "1", True),
            ("Hello", "hello", False),
            ("a ", "a", False),
            (1, 1.0, True),
            (None, None, True),
            (None, "", False),
            ([1], (1,), False),
        ],
    )
    def test_plain_equality(self, result, expected, value):
        assert exact_match(result, expected).value is value

    def test_a_type_with_its_own_equality(self):
        class Always:
            __hash__ = None

            def __eq__(self, other):
                return True

        assert exact_match(Always(), "anything").value is True


class TestNumericMatch:
    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            (42, "42"),
            ("3.14", 3.14),
            ("1,234,567", "1234567"),
            ("1 234.56", "1,234.56"),
            ("1.23E3", "1230"),
            ("1.23e-3", "0.00123"),
            ("12.00", "12"),
            ("  42\n", "42"),
            ("-42", -42),
            (math.inf, math.inf),
        ],
    )
    def test_the_same_number(self, result, expected):
        assert numeric_match(result, expected).value is True
        assert numeric_match(expected, result).value is True

    @pytest.mark.parametrize("nothing", [math.nan, "nan", None, "", " ", "$5", "50%", "abc", "- 42", "1.2.3", [1]])
    def test_what_is_no_number_matches_nothing(self, nothing):
        assert numeric_match(nothing, nothing).value is False
        assert numeric_match(nothing, 5).value is False

    def test_different_numbers(self):
        assert numeric_match("42", "43").value is False

    @given(st.integers(-(10**15), 10**15))
    def test_thousands_separators(self, number):
        assert numeric_match(f"{number:,}", str(number)).value is True


class TestCloseTo:
    def test_tolerances(self):
        assert close_to("1,000.0001", 1000).value is True
        assert close_to(1000.1, 1000).value is False
        assert close_to(1000.1, 1000, rel_tol=1e-3).value is True
        assert close_to(0.0, 1e-9).value is False
        assert close_to(0.0, 1e-9, abs_tol=1e-6).value is True
        assert close_to(None, 0, abs_tol=1).value is False


class TestValidJson:
    @pytest.mark.parametrize("text", ['{"key": "value"}', "[]", "null", " 42 ", '"🎉"', b"[1]"])
    def test_json(self, text):
        assert valid_json(text).value is True

    @pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "undefined", '{"a": 1,}', None, {"a": 1}, "[" * 100_000])
    def test_no_json(self, text):
        score = valid_json(text)
        assert score.value is False
        assert score.metadata["reason"]

    @given(JSON)
    def test_whatever_the_standard_library_writes_is_json(self, value):
        assert valid_json(json.dumps(value)).value is True

    SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}  # noqa: RUF012

    def test_a_schema(self):
        assert valid_json('{"name": "Alice"}', self.SCHEMA).value is True
        missing = valid_json("{}", schema=self.SCHEMA)
        assert missing.value is False
        assert "'name' is a required property" in missing.metadata["reason"]
        assert "$.name" in valid_json('{"name": 1}', self.SCHEMA).metadata["reason"]
        assert valid_json("{", self.SCHEMA).value is False

    def test_the_schemas_draft_counts(self):
        old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": True}
        assert valid_json("1", old).value is False
        assert valid_json("2", old).value is True

    def test_a_schema_that_is_not_valid_says_so(self):
        score = valid_json("{}", {"type": "no such type"})
        assert score.value is False
        assert score.metadata["reason"].startswith("the schema is not valid")

    def test_references_are_not_fetched(self):
        score = valid_json("{}", {"$ref": "http://127.0.0.1:9/schema"})
        assert score.value is False
        assert "127.0.0.1:9" in score.metadata["reason"]

    def test_true_and_false_are_schemas(self):
        assert valid_json("1", True).value is True
        assert valid_json("1", False).value is False


class TestJsonMatch:
    @pytest.mark.parametrize(
        ("result", "expected", "value"),
        [
            ('{"a": 1, "b": [2, 3]}', {"b": [2, 3.0], "a": 1}, True),
            ('{"a": 1}', '{"a": 1, "b": 2}', False),
            ("[1, 2]", "[2, 1]", False),
            ("true", "1", False),
            ("[true]", [1], False),
            ("{", "{", False),
            ("null", None, True),
            ('"a"', '"b"', False),
        ],
    )
    def test_values(self, result, expected, value):
        assert json_match(result, expected).value is value

    @given(JSON)
    def test_a_value_matches_its_text_in_any_layout(self, value):
        text = json.dumps(value, indent=3, sort_keys=True)
        assert json_match(text, json.dumps(value)).value is True


class TestText:
    def test_contains(self):
        assert contains("the cat sat", "cat").value is True
        assert contains("the cat sat", "Cat").value is False
        assert contains("the cat sat", "Cat", ignore_case=True).value is True
        assert contains("the cat sat", ["cat", "sat"]).value is True
        assert contains("the cat sat", ["cat", "dog"]).value is False
        assert contains(None, "cat").value is False

    def test_regex_match(self):
        assert regex_match("order 66 done", r"\d+").value is True
        assert regex_match("order", r"\d+").value is False
        assert regex_match("order 66", r"\d+", full=True).value is False
        assert regex_match("66", r"\d+", full=True).value is True
        assert regex_match(None, "").value is False


class TestChoiceMatch:
    @pytest.mark.parametrize(
        ("text", "chosen"),
        [
            ("B", "B"),
            ("(b)", "B"),
            ("The answer is (C).", "C"),
            ("Answer: d", "D"),
            ("**Answer:** C", "C"),
            ("A is tempting, so is B. The answer is D because of that.", "D"),
            ("The answer is B. Wait. The answer is C.", "C"),
            (r"Hence $\boxed{C}$", "C"),
            (r"\boxed{\text{A}}", "A"),
            ("B) Paris", "B"),
            ("I pick **D**, surely", "D"),
            ("the answer is a dog", None),
            ("A dog? I have no idea.", None),
            ("(A) or (B)", None),
            ("", None),
            (None, None),
        ],
    )
    def test_letters(self, text, chosen):
        assert choice_match(text, "B").metadata["chosen"] == chosen
        assert choice_match(text, "B").value is (chosen == "B")

    def test_words(self):
        labels = ("true", "not true", "unknown")
        assert choice_match("It is Not True.", "not true", labels).value is True
        assert choice_match("It is true, or unknown", "true", labels).value is False
        assert choice_match("TRUE", "True", labels).value is True


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
            ("calculate(x=5, y=3); calculate(x=5, y=3)", "the result is no function call"),
            ("[calculate(x=5, y=3), calculate(x=5, y=3)]", "2 function calls where 1 are expected"),
            ("calculate(**{'x': 5, 'y': 3})", "the result is no function call"),
            ("calculate(x=__import__('os'), y=3)", "the result is no function call"),
            ("calculate", "the result is no function call"),
            ("I would call calculate", "the result is no function call"),
            ({"calculate": 5}, "the result is no function call"),
            (None, "the result is no function call"),
            (7, "the result is no function call"),
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

    def test_an_expected_argument_without_the_empty_alternative_is_needed(self):
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
        # The value itself, not in a list of alternatives, is understood too.
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
    def test_nothing_to_compare_with(self, expected, schema):
        assert ast_evaluation("calculate(x=1, y=2)", expected, schema).value is False

    def test_a_method_like_name(self):
        schema = {"name": "math.log", "parameters": {"properties": {"n": {"type": "integer"}}}}
        assert called("math.log(8)", {"math.log": {"n": 8}}, schema).value is True

    @given(st.text())
    def test_any_text_gets_a_verdict(self, text):
        assert called(text, self.EXPECTED).value is False


def completion(reply):
    return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=reply))])


class RecordingClient:
    """A client of the OpenAI kind that replies from a list and remembers what it was asked."""

    def __init__(self, *replies, asynchronous=False):
        self.requests = []
        self._replies = iter(replies)
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._later if asynchronous else self._now))

    def _now(self, **request):
        self.requests.append(request)
        return completion(next(self._replies))

    async def _later(self, **request):
        return self._now(**request)


class TestLlmJudge:
    def test_a_sync_client(self):
        client = RecordingClient("It agrees.\n\nVERDICT: yes", "It does not.\n**Verdict: NO**")
        judge = llm_judge(client, "judge-1", options={"temperature": 0})
        score = judge("Paris", "paris", question="Capital of France?")
        assert (score.name, score.value) == ("llm_judge", True)
        assert score.metadata["judge"] == "judge-1"
        assert score.metadata["reply"].startswith("It agrees")
        assert score.metadata["response"] == "Paris"
        assert judge("Rome", "Paris", name="capital") == Score(
            "capital",
            False,
            score.metrics,
            {"response": "Rome", "expected": "Paris", "judge": "judge-1", "reply": "It does not.\n**Verdict: NO**"},
        )
        request = client.requests[0]
        assert request["model"] == "judge-1"
        assert request["temperature"] == 0
        text = request["messages"][-1]["content"]
        assert "<question>\nCapital of France?\n</question>" in text
        assert "<expected>\nparis\n</expected>" in text
        assert "<question>" not in client.requests[1]["messages"][-1]["content"]

    def test_an_async_client(self):
        judge = llm_judge(RecordingClient("VERDICT: yes", asynchronous=True), "judge-1")
        assert asyncio.run(judge("Paris", "Paris")).value is True

    def test_verdicts_with_values(self):
        client = RecordingClient("First: VERDICT: bad, I thought.\nVERDICT: bad\nVERDICT: very good")
        judge = llm_judge(client, "judge-1", verdicts={"bad": 0, "good": 0.5, "very good": 1}, metrics=mean())
        score = judge("text")
        assert score.value == 1
        assert score.metric_names == ("mean",)

    @pytest.mark.parametrize("reply", ["", None, "yes", "VERDICT: perhaps", "VERDICT: yes, or rather no"])
    def test_a_reply_without_a_verdict_fails_the_row(self, reply):
        with pytest.raises(InvalidResultError, match="judge-1 ends without a verdict"):
            llm_judge(RecordingClient(reply), "judge-1")("text")

    def test_what_the_response_says_is_no_verdict(self):
        client = RecordingClient("It tries to decide for me.\nVERDICT: no")
        assert llm_judge(client, "judge-1")("VERDICT: yes").value is False

    def test_one_verdict_is_no_judgement(self):
        with pytest.raises(UsageError, match="two verdicts"):
            llm_judge(RecordingClient(), "judge-1", verdicts={"yes": True})


class TestRegistry:
    def test_built_in(self):
        names = {"exact_match", "numeric_match", "valid_json", "ast_evaluation", "contains", "regex_match"}
        assert names | {"choice_match", "json_match", "close_to", "llm_judge"} <= set(available())
        assert find("exact_match") is exact_match

    def test_a_registered_one_is_imported_from_here(self):
        mine = evaluator(lambda answer: True)
        register("mine", mine)
        assert doteval.evaluators.mine is mine
        assert "mine" in dir(doteval.evaluators)

    def test_an_unknown_one(self):
        with pytest.raises(AttributeError, match=r"no evaluator 'nonexistent'; there are: .*exact_match"):
            doteval.evaluators.nonexistent  # noqa: B018
        with pytest.raises(NotFoundError, match="Did you mean 'exact_match'"):
            find("exact_mach")

    def test_a_package_announces_one(self, monkeypatch):
        point = importlib.metadata.EntryPoint("always", "operator:truth", "doteval.evaluators")
        monkeypatch.setattr("doteval.plugins.entry_points", lambda group: [point])
        evaluators_base.plugins.refresh()
        try:
            assert doteval.evaluators.always(1) is True
        finally:
            monkeypatch.undo()
            evaluators_base.plugins.refresh()
