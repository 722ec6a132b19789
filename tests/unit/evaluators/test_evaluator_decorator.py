"""The decorator `evaluator`, and how evaluators are found by name."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect

import pytest

import doteval.evaluators
from doteval.core.json_codec import encode
from doteval.core.results import Score
from doteval.errors import NotFoundError, UsageError
from doteval.evaluators import available, evaluator, exact_match, find, register
from doteval.evaluators import decorator as evaluator_decorator
from doteval.metrics import accuracy, mean


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
    def test_metrics_are_given_as_metrics_factories_or_names(self, metrics, names):
        score = evaluator(metrics=metrics)(lambda answer: answer)(1)
        assert score.metric_names == names

    def test_async_functions(self):
        @evaluator(metrics=mean())
        async def later(answer):
            return answer

        assert inspect.iscoroutinefunction(later)
        score = asyncio.run(later(3, name="soon"))
        assert (score.name, score.value, score.metadata) == ("soon", 3, {"answer": 3})

    def test_a_plain_function_that_calls_an_async_one(self):
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

    def test_the_score_of_another_evaluator_is_kept(self):
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

    def test_arguments_that_cannot_be_stored_do_not_make_the_row_fail(self):
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

    def test_a_parameter_called_name_is_the_name_of_the_score_if_it_is_none_by_default(self):
        @evaluator
        def named(answer, threshold=0.5, name=None):
            return name is None and threshold == 0.5

        assert list(inspect.signature(named).parameters) == ["answer", "threshold", "name"]
        score = named("yes", name="other")
        assert (score.name, score.value, score.metadata) == ("other", True, {"answer": "yes"})

    def test_numpy_scalars_become_plain_values(self):
        numpy = pytest.importorskip("numpy")
        assert type(evaluator(lambda answer: numpy.bool_(True))(1).value) is bool
        assert type(evaluator(lambda answer: numpy.float32(0.5))(1).value) is float

    def test_errors_of_the_function_are_raised_in_the_row(self):
        @evaluator
        def fails(answer):
            raise KeyError("no")

        with pytest.raises(KeyError):
            fails(1)


class TestRegistry:
    def test_built_in(self):
        names = {"exact_match", "numeric_match", "valid_json", "ast_evaluation", "contains", "regex_match"}
        assert names | {"choice_match", "json_match", "close_to", "llm_judge"} <= set(available())
        assert find("exact_match") is exact_match

    def test_a_registered_evaluator_can_be_imported(self):
        mine = evaluator(lambda answer: True)
        register("mine", mine)
        assert doteval.evaluators.mine is mine
        assert "mine" in dir(doteval.evaluators)

    def test_an_unknown_evaluator(self):
        with pytest.raises(AttributeError, match=r"no evaluator 'nonexistent'; there are: .*exact_match"):
            doteval.evaluators.nonexistent  # noqa: B018
        with pytest.raises(NotFoundError, match="Did you mean 'exact_match'"):
            find("exact_mach")

    def test_a_package_announces_an_evaluator(self, monkeypatch):
        point = importlib.metadata.EntryPoint("always", "operator:truth", "doteval.evaluators")
        monkeypatch.setattr("doteval.core.plugins.entry_points", lambda group: [point])
        evaluator_decorator.plugins.refresh()
        try:
            assert doteval.evaluators.always(1) is True
        finally:
            monkeypatch.undo()
            evaluator_decorator.plugins.refresh()
