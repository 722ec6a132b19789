"""@foreach and @batch: the specs they attach, the parameters they hide from pytest, and their errors."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest

from doteval import ForEach, batch, foreach
from doteval.concurrency import SlidingWindow
from doteval.datasets import register
from doteval.errors import ColumnError, NotFoundError
from doteval.foreach import parse_columns, spec_of

ROWS = [("a", "b")]


def parameters(function):
    return list(inspect.signature(function).parameters)


class TestColumns:
    @pytest.mark.parametrize(
        ("text", "columns"),
        [("text", ("text",)), ("text,expected", ("text", "expected")), (" text , expected ", ("text", "expected"))],
    )
    def test_split_and_stripped(self, text, columns):
        assert parse_columns(text) == columns

    @pytest.mark.parametrize("text", ["", "a,", "a b", "1a", "a,,b", "a-b"])
    def test_a_column_must_be_an_identifier(self, text):
        with pytest.raises(ColumnError, match="not a parameter name"):
            parse_columns(text)

    def test_a_column_named_twice(self):
        with pytest.raises(ColumnError, match="twice"):
            parse_columns("a,b,a")


class TestForeach:
    def test_the_function_is_marked_and_still_called_with_values(self):
        @foreach("text,expected", ROWS)
        def eval_case(text, expected, model):
            """What it does."""
            return text, expected, model

        spec = spec_of(eval_case)
        assert spec.columns == ("text", "expected")
        assert spec.dataset is ROWS
        assert (spec.retries, spec.concurrency, spec.storage, spec.batch_size) == (None, None, None, None)
        assert eval_case("a", "b", model="m") == ("a", "b", "m")
        assert (eval_case.__name__, eval_case.__doc__) == ("eval_case", "What it does.")

    def test_pytest_sees_only_the_fixtures(self):
        @foreach("text,expected", ROWS)
        def eval_case(text, model, expected, *, client=None, **rest):
            pass

        assert parameters(eval_case) == ["model", "client", "rest"]

    def test_the_decorated_function_itself_is_not_changed(self):
        def eval_case(text, model):
            pass

        first = foreach("text", [1])(eval_case)
        second = foreach("text", [2])(eval_case)
        assert spec_of(eval_case) is None
        assert parameters(eval_case) == ["text", "model"]
        assert (spec_of(first).dataset, spec_of(second).dataset) == ([1], [2])

    def test_closures_defaults_and_async(self):
        factor = 3

        def make():
            async def eval_case(n, extra=1, *, more=2):
                return n * factor + extra + more

            return eval_case

        marked = foreach("n", [1])(make())
        assert inspect.iscoroutinefunction(marked)
        assert asyncio.run(marked(2)) == 9

    def test_methods(self):
        class EvalThings:
            @foreach("n", [1])
            def eval_case(self, n, model):
                return n, model

        assert parameters(EvalThings.eval_case) == ["self", "model"]
        assert EvalThings().eval_case(1, "m") == (1, "m")

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_callables_that_are_not_functions(self, asynchronous):
        def plain(n, extra):
            return n + extra

        async def later(n, extra):
            return n + extra

        marked = foreach("n", [1])(functools.partial(later if asynchronous else plain, extra=5))
        assert parameters(marked) == ["extra"]
        assert inspect.iscoroutinefunction(marked) is asynchronous
        assert (asyncio.run(marked(1)) if asynchronous else marked(1)) == 6

    def test_a_column_without_a_parameter(self):
        with pytest.raises(ColumnError, match=r"eval_case\(text, model\) has no parameter for the column 'expected'"):

            @foreach("text,expected", ROWS)
            def eval_case(text, model):
                pass

        with pytest.raises(ColumnError, match="for the columns 'a', 'b'"):
            foreach("a,b", ROWS)(lambda: None)

    def test_keyword_arguments_take_any_column(self):
        marked = foreach("text,expected", ROWS)(lambda **row: row)
        assert spec_of(marked).columns == ("text", "expected")
        assert marked(text=1, expected=2) == {"text": 1, "expected": 2}

    def test_settings(self):
        strategy = SlidingWindow(3)
        marked = foreach("n", [1], retries=2, concurrency=strategy, storage="sqlite://x.db")(lambda n: n)
        spec = spec_of(marked)
        assert (spec.retries, spec.concurrency, spec.storage) == (2, strategy, "sqlite://x.db")

    def test_a_spec_never_shows_the_rows(self):
        assert "secret" not in repr(spec_of(foreach("n", ["secret"])(lambda n: n)))

    @pytest.mark.parametrize("thing", [None, 1, len, object()])
    def test_other_objects_have_no_spec(self, thing):
        assert spec_of(thing) is None


class TestForEachInstances:
    def test_settings_are_shared_and_overridden(self):
        careful = ForEach(retries=5, concurrency=2, storage="a.db")
        spec = spec_of(careful("n", [1])(lambda n: n))
        assert (spec.retries, spec.concurrency, spec.storage) == (5, 2, "a.db")
        spec = spec_of(careful("n", [1], retries=0, concurrency=1)(lambda n: n))
        assert (spec.retries, spec.concurrency, spec.storage) == (0, 1, "a.db")


class Colours:
    columns = ("name", "code")
    num_rows = 1

    def __init__(self, split, shade="light"):
        self.split = split
        self.shade = shade

    def __iter__(self):
        yield ("red", self.split)


class TestRegisteredDatasets:
    @pytest.fixture(autouse=True)
    def colours(self):
        register("colours", Colours)

    def test_the_columns_of_the_dataset_are_used(self):
        @foreach.colours("test", shade="dark", retries=3)
        def eval_colour(name, code, model):
            pass

        spec = spec_of(eval_colour)
        assert spec.columns == ("name", "code")
        assert (spec.dataset.split, spec.dataset.shade, spec.retries) == ("test", "dark", 3)
        assert parameters(eval_colour) == ["model"]

    def test_settings_of_the_instance(self):
        spec = spec_of(ForEach(concurrency=4).colours("test")(lambda name, code: None))
        assert spec.concurrency == 4

    def test_the_function_lacks_a_column(self):
        with pytest.raises(ColumnError, match="'code'"):
            foreach.colours("test")(lambda name: None)

    def test_an_unknown_dataset_names_the_nearest(self):
        with pytest.raises(NotFoundError) as raised:
            foreach.colors("test")
        assert raised.value.remedy == "Did you mean 'colours'?"

    def test_unknown_attributes_are_missing(self):
        assert not hasattr(foreach, "__wrapped__")
        assert not hasattr(foreach, "no_such_dataset")
        assert getattr(foreach, "no_such_dataset", None) is None


class TestBatch:
    def test_the_size_is_kept(self):
        @batch("text,expected", ROWS, batch_size=8, concurrency=2)
        def eval_batch(text, expected, model):
            pass

        spec = spec_of(eval_batch)
        assert (spec.columns, spec.batch_size, spec.concurrency) == (("text", "expected"), 8, 2)
        assert parameters(eval_batch) == ["model"]
        assert spec_of(batch("n", [1])(lambda n: n)).batch_size == 32

    @pytest.mark.parametrize("size", [0, -1])
    def test_it_must_be_positive(self, size):
        with pytest.raises(ColumnError, match="at least 1"):
            batch("n", [1], batch_size=size)
