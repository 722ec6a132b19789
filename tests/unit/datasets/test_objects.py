"""Datasets that are objects of any kind that `@foreach` takes, and how a record becomes values by column."""

from __future__ import annotations

import itertools
from collections import OrderedDict, namedtuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.datasets import open_dataset, row_values
from doteval.errors import ColumnError, DatasetError

ROWS = [("a", 1), ("b", 2)]


class TestRowValues:
    @pytest.mark.parametrize(
        ("record", "values"),
        [
            (("a", 1), {"x": "a", "y": 1}),
            (["a", 1, "extra"], {"x": "a", "y": 1}),
            ({"y": 1, "x": "a", "z": 3}, {"x": "a", "y": 1}),
            ({"y": 1}, {"x": None, "y": 1}),
            (OrderedDict(x=1, y=2), {"x": 1, "y": 2}),
            (namedtuple("Point", "y x")(1, 2), {"x": 1, "y": 2}),
        ],
    )
    def test_two_columns(self, record, values):
        assert row_values(("x", "y"), record) == values

    @pytest.mark.parametrize(
        ("record", "value"),
        [("ab", "ab"), (("ab",), "ab"), (["ab", "cd"], "ab"), ({"x": 5}, 5), ({}, None), (None, None), (7, 7)],
    )
    def test_one_column(self, record, value):
        assert row_values(("x",), record) == {"x": value}

    @pytest.mark.parametrize(
        ("record", "shape"),
        [(("secret",), "tuple of 1"), ([], "list of 0"), ("secret", "a str"), (7, "an? int")],
    )
    def test_the_error_of_a_short_row_tells_its_shape_and_not_its_content(self, record, shape):
        with pytest.raises(ValueError, match=shape) as raised:
            row_values(("x", "y"), record)
        assert "x, y need" in str(raised.value)
        assert "secret" not in str(raised.value)

    def test_an_empty_tuple_has_no_value_for_one_column(self):
        with pytest.raises(ValueError, match="tuple of 0"):
            row_values(("x",), ())

    @given(st.lists(st.integers(), min_size=2), st.integers(1, 2))
    def test_positions(self, record, n):
        columns = ("x", "y")[:n]
        assert list(row_values(columns, record).values()) == record[:n]


class TestInMemory:
    def test_a_list(self):
        dataset = open_dataset(ROWS)
        assert list(dataset.rows()) == ROWS
        assert list(dataset.rows()) == ROWS
        assert (dataset.length, dataset.columns, dataset.fingerprint, dataset.reiterable) == (2, None, None, True)

    @pytest.mark.parametrize("source", [[], (), range(0)])
    def test_an_empty_sequence(self, source):
        assert list(open_dataset(source).rows()) == []

    def test_a_generator_is_read_lazily_and_only_once(self):
        taken = []

        def rows():
            for n in range(10):
                taken.append(n)
                yield n

        dataset = open_dataset(rows())
        assert (dataset.length, dataset.reiterable) == (None, False)
        assert list(itertools.islice(dataset.rows(), 3)) == [0, 1, 2]
        assert taken == [0, 1, 2]
        with pytest.raises(DatasetError, match="only once"):
            list(dataset.rows())

    def test_a_generator_function_is_called_again_for_a_second_reading(self):
        calls = []

        def rows():
            calls.append(1)
            yield from ROWS

        dataset = open_dataset(rows)
        assert dataset.reiterable
        assert list(dataset.rows()) == ROWS
        assert list(dataset.rows()) == ROWS
        assert len(calls) == 2

    def test_a_function_that_returns_a_list_a_function_or_a_path(self, tmp_path):
        assert open_dataset(lambda: ROWS).length == 2
        assert list(open_dataset(lambda: lambda: iter(ROWS)).rows()) == ROWS
        (tmp_path / "rows.jsonl").write_text("1\n2\n")
        assert list(open_dataset(lambda: "rows.jsonl", base=tmp_path).rows()) == [1, 2]

    def test_a_function_that_fails(self):
        def rows():
            raise KeyError("secret")

        with pytest.raises(DatasetError, match=r"the dataset function .*rows raised KeyError") as raised:
            open_dataset(rows)
        assert isinstance(raised.value.__cause__, KeyError)
        assert "secret" not in str(raised.value)

    def test_an_iterator_that_fails_says_after_how_many_rows(self):
        def rows():
            yield from ROWS
            raise OSError("disk")

        reading = open_dataset(rows).rows()
        assert [next(reading), next(reading)] == ROWS
        with pytest.raises(DatasetError, match="raised OSError after 2 rows") as raised:
            next(reading)
        assert isinstance(raised.value.__cause__, OSError)

    def test_an_object_with_columns(self):
        class Numbers:
            columns = ("n", "square")
            num_rows = 3

            def __iter__(self):
                return ((n, n * n) for n in range(3))

        dataset = open_dataset(Numbers(), columns=("a", "b"))
        assert (dataset.columns, dataset.length) == (("n", "square"), 3)
        assert list(dataset.rows()) == [(0, 0), (1, 1), (2, 4)]

    def test_an_object_with_length_and_items_only(self):
        class Torchlike:
            def __len__(self):
                return 3

            def __getitem__(self, index):
                return (index, -index)

        dataset = open_dataset(Torchlike())
        assert dataset.length == 3
        assert list(dataset.rows()) == [(0, 0), (1, -1), (2, -2)]

    @pytest.mark.parametrize(
        ("source", "problem"), [({"a": [1]}, "dict"), (b"ab", "bytes"), (None, "None"), (5, "int")]
    )
    def test_objects_that_are_not_datasets(self, source, problem):
        with pytest.raises(DatasetError, match=problem) as raised:
            open_dataset(source)
        assert raised.value.remedy

    def test_asynchronous_generators_are_refused_with_a_remedy(self):
        async def rows():
            yield 1

        async def make():
            return ROWS

        for source in (rows, rows(), make):
            with pytest.raises(DatasetError, match="asynchronous") as raised:
                open_dataset(source)
            assert "plain" in raised.value.remedy

    def test_opening_an_opened_dataset_returns_it(self):
        dataset = open_dataset(ROWS)
        assert open_dataset(dataset) is dataset


class TestFrames:
    def test_pandas(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"text": ["a", "b"], "n": [1, 2]}, index=[7, 8])
        dataset = open_dataset(frame, columns=("n", "text"))
        assert (dataset.columns, dataset.length) == (("text", "n"), 2)
        rows = list(dataset.rows())
        assert rows == [{"text": "a", "n": 1}, {"text": "b", "n": 2}]
        assert type(rows[0]["n"]) is int
        with pytest.raises(ColumnError, match="the data frame has no column 'txt'"):
            open_dataset(frame, columns=("txt",))

    def test_a_frame_with_the_interface_of_polars(self):
        class Frame:
            columns = ("a", "b")

            def __len__(self):
                return 1

            def __init__(self, rows):
                self._rows = rows

            def select(self, names):
                return Frame([{name: row[name] for name in names} for row in self._rows])

            def iter_rows(self):
                return (tuple(row.values()) for row in self._rows)

        frame = Frame([{"a": 1, "b": 2}])
        assert list(open_dataset(frame).rows()) == [{"a": 1, "b": 2}]
        assert list(open_dataset(frame, columns=("b",)).rows()) == [{"b": 2}]

    def test_a_column_that_is_there_twice_is_refused_if_it_is_asked_for(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame([["q", "right", "wrong"]], columns=["q", "answer", "answer"])
        for columns in (None, ("answer",), ("q", "answer")):
            with pytest.raises(
                DatasetError, match="the data frame has the column 'answer' twice: columns 2 and 3 of 3"
            ):
                open_dataset(frame, columns=columns)
        assert list(open_dataset(frame, columns=("q",)).rows()) == [{"q": "q"}]
        # Names become text.
        with pytest.raises(DatasetError, match="'1' twice"):
            open_dataset(pandas.DataFrame([[1, 2]], columns=[1, "1"]))

    def test_a_frame_that_a_function_returns_is_checked_too(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"text": ["a"]})
        with pytest.raises(ColumnError, match="the data frame has no column 'txt'"):
            open_dataset(lambda: frame, columns=("txt",))

    def test_columns_that_are_not_asked_for_are_not_read(self):
        pandas = pytest.importorskip("pandas")

        class Unread(pandas.api.extensions.ExtensionArray):
            dtype = pandas.arrays.NumpyExtensionArray._from_sequence([1]).dtype

            def __len__(self):
                return 1

            def copy(self):
                return self

            def __getitem__(self, item):
                raise AssertionError("was read")

        frame = pandas.DataFrame({"a": [1], "b": pandas.Series(Unread())})
        assert list(open_dataset(frame, columns=("a",)).rows()) == [{"a": 1}]


class TestNumpy:
    def test_rows_map_by_position(self):
        dataset = open_dataset(numpy.array([[1, 2, 3], [4, 5, 6]]), columns=("a", "b"))
        assert dataset.length == 2
        assert [row_values(("a", "b"), row) for row in dataset.rows()] == [{"a": 1, "b": 2}, {"a": 4, "b": 5}]
        with pytest.raises(ValueError, match="tuple of 3, and the columns a, b, c, d need 4"):
            row_values(("a", "b", "c", "d"), next(dataset.rows()))

    def test_a_row_is_the_value_of_the_only_column(self):
        images = numpy.arange(8).reshape(2, 2, 2)
        values = [row_values(("image",), row)["image"] for row in open_dataset(images).rows()]
        assert [value.tolist() for value in values] == images.tolist()
        assert row_values(("n",), numpy.int64(3)) == {"n": 3}

    def test_a_structured_array_maps_by_field(self):
        rows = numpy.array([(1, "x"), (2, "y")], dtype=[("a", "i4"), ("b", "U1")])
        dataset = open_dataset(rows, columns=("b", "a"))
        assert dataset.columns == ("a", "b")
        assert [row_values(("b", "a"), row) for row in dataset.rows()] == [{"b": "x", "a": 1}, {"b": "y", "a": 2}]
        with pytest.raises(ColumnError, match="no column 'c'"):
            open_dataset(rows, columns=("a", "c"))

    def test_a_scalar_does_not_fill_two_columns(self):
        with pytest.raises(ValueError, match="the row is a float64"):
            row_values(("a", "b"), numpy.float64(1))


class HuggingFace:
    """The interface of datasets.Dataset; the package is not installed for the tests."""

    features = {"text": "string", "label": "int64"}  # noqa: RUF012
    num_rows = 2
    _fingerprint = "0123abcd"

    def __init__(self, names=("text", "label"), kind=None):
        self.column_names = list(names)
        self.format = {"type": kind}

    def __len__(self):
        return 2

    def __iter__(self):
        rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
        return iter([{name: row[name] for name in self.column_names} for row in rows])

    def select_columns(self, names):
        return HuggingFace(names)


class StreamingHuggingFace:
    """The interface of datasets.IterableDataset before its features are known."""

    features = None
    column_names = None

    def __iter__(self):
        return iter(HuggingFace())


class TestHuggingFace:
    def test_a_dataset(self):
        dataset = open_dataset(HuggingFace(), columns=("label",))
        assert (dataset.columns, dataset.length) == (("text", "label"), 2)
        assert dataset.fingerprint == "huggingface:0123abcd"
        assert [row_values(("label",), row) for row in dataset.rows()] == [{"label": 0}, {"label": 1}]
        with pytest.raises(ColumnError) as raised:
            open_dataset(HuggingFace(), columns=("lable",))
        assert raised.value.remedy == "Did you mean 'label'?"

    def test_columns_that_are_not_asked_for_are_not_decoded(self):
        assert list(open_dataset(HuggingFace(), columns=("label",)).rows()) == [{"label": 0}, {"label": 1}]
        assert next(open_dataset(HuggingFace()).rows()) == {"text": "a", "label": 0}

    def test_a_transform_has_columns_of_its_own(self):
        dataset = open_dataset(HuggingFace(kind="custom"), columns=("upper",))
        assert dataset.columns is None
        assert next(dataset.rows()) == {"text": "a", "label": 0}

    def test_streaming(self):
        dataset = open_dataset(StreamingHuggingFace(), columns=("text",))
        assert (dataset.columns, dataset.length, dataset.fingerprint, dataset.reiterable) == (None, None, None, True)
        assert len(list(dataset.rows())) == 2

    def test_splits_must_be_chosen(self):
        with pytest.raises(DatasetError, match="splits train, test") as raised:
            open_dataset({"train": HuggingFace(), "test": HuggingFace()})
        assert raised.value.remedy == "Choose one: dataset['train']."
