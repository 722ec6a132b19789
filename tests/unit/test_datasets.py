"""Datasets: everything that @foreach takes, and how one record becomes values by column."""

from __future__ import annotations

import builtins
import csv
import importlib.metadata
import io
import itertools
import json
import tracemalloc
from collections import OrderedDict, namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.datasets import (
    Dataset,
    available,
    files,
    get_dataset_info,
    list_available,
    open_dataset,
    register,
    registered,
    row_values,
)
from doteval.datasets import registry as datasets_registry
from doteval.errors import ColumnError, DatasetError, NotFoundError, UsageError

ROWS = [("a", 1), ("b", 2)]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


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
    def test_too_short_names_the_shape_and_not_the_content(self, record, shape):
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
    def test_an_empty_one(self, source):
        assert list(open_dataset(source).rows()) == []

    def test_a_generator_is_read_once_and_lazily(self):
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

    def test_a_generator_function_is_read_again_by_calling_it_again(self):
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
    def test_what_is_no_dataset(self, source, problem):
        with pytest.raises(DatasetError, match=problem) as raised:
            open_dataset(source)
        assert raised.value.remedy

    def test_asynchronous_ones_are_refused_with_a_remedy(self):
        async def rows():
            yield 1

        async def make():
            return ROWS

        for source in (rows, rows(), make):
            with pytest.raises(DatasetError, match="asynchronous") as raised:
                open_dataset(source)
            assert "plain" in raised.value.remedy

    def test_an_opened_dataset_stays_as_it_is(self):
        dataset = open_dataset(ROWS)
        assert open_dataset(dataset) is dataset


class TestCsv:
    def write(self, path: Path, text: str, encoding: str = "utf-8") -> Path:
        path.write_text(text, encoding=encoding, newline="")
        return path

    def test_rows_are_dicts_of_text(self, tmp_path):
        path = self.write(tmp_path / "d.csv", 'text, n \r\n"a, ""b""\nc",1\r\n\r\nd,02\r\n')
        dataset = open_dataset(path)
        assert dataset.columns == ("text", "n")
        assert list(dataset.rows()) == [{"text": 'a, "b"\nc', "n": "1"}, {"text": "d", "n": "02"}]
        assert list(dataset.rows()) == list(dataset.rows())
        assert dataset.length is None

    def test_short_and_long_rows(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "a,b\n1\n1,2,3\n")
        rows = list(open_dataset(path).rows())
        assert [row_values(("a", "b"), row) for row in rows] == [{"a": "1", "b": None}, {"a": "1", "b": "2"}]

    def test_tabs_and_byte_order_mark(self, tmp_path):
        path = self.write(tmp_path / "d.TSV", "a\tb\n1\t2,3\n", encoding="utf-8-sig")
        assert list(open_dataset(path).rows()) == [{"a": "1", "b": "2,3"}]

    def test_a_column_that_is_not_there(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "question,answer\n1,2\n")
        with pytest.raises(ColumnError, match=r"d.csv has no column 'anwser'") as raised:
            open_dataset(path, columns=("question", "anwser"))
        assert raised.value.remedy == "Did you mean 'answer'?"
        assert open_dataset(path, columns=("answer",)).columns == ("question", "answer")

    @pytest.mark.parametrize(("text", "problem"), [("", "d.csv is empty"), ("a,b,a\n", "'a' twice")])
    def test_headers_that_cannot_be_used(self, tmp_path, text, problem):
        with pytest.raises(DatasetError, match=problem):
            open_dataset(self.write(tmp_path / "d.csv", text))

    def test_another_encoding_names_the_line(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "a\n" + "x\n" * 5000 + "café\n", encoding="latin-1")
        with pytest.raises(DatasetError, match=r"d.csv, line \d+: the text is not UTF-8"):
            list(open_dataset(path).rows())

    def test_long_cells(self, tmp_path):
        path = self.write(tmp_path / "d.csv", f"a\n{'x' * 500_000}\n")
        assert len(next(open_dataset(path).rows())["a"]) == 500_000

    @given(st.lists(st.tuples(TEXT, TEXT), max_size=10))
    def test_what_the_csv_module_writes_is_read_back(self, tmp_path_factory, rows):
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
        path = self.write(tmp_path_factory.mktemp("csv") / "d.csv", text.getvalue())
        assert [(row["a"], row["b"]) for row in open_dataset(path).rows()] == rows


class TestJsonLines:
    def test_rows(self, tmp_path):
        path = tmp_path / "d.jsonl"
        path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n[1, "x"]\n"text"\n{"a": NaN}\n{"a": 123456789012345678901234}')
        rows = list(open_dataset(path).rows())
        assert rows[:3] == [{"a": 1}, [1, "x"], "text"]
        assert rows[3]["a"] != rows[3]["a"]
        assert rows[4] == {"a": 123456789012345678901234}
        assert open_dataset(path).columns is None

    def test_a_bad_line_is_named_without_its_content(self, tmp_path):
        path = tmp_path / "d.ndjson"
        path.write_text('{"a": 1}\n\n{"a": secret}\n')
        reading = open_dataset(path).rows()
        assert next(reading) == {"a": 1}
        with pytest.raises(DatasetError, match=r"d.ndjson, line 3: no JSON: .* column 7") as raised:
            next(reading)
        assert "secret" not in str(raised.value)
        assert raised.value.__cause__ is None

    @pytest.mark.parametrize(("line", "problem"), [(b'"caf\xe9"', "not UTF-8"), (b"[" * 200_000, "nested too deeply")])
    def test_lines_that_cannot_be_read(self, tmp_path, line, problem):
        path = tmp_path / "d.jsonl"
        path.write_bytes(line)
        with pytest.raises(DatasetError, match=f"line 1: .*{problem}"):
            list(open_dataset(path).rows())

    def test_memory_does_not_grow_with_the_file(self, tmp_path):
        path = tmp_path / "d.jsonl"
        with path.open("w") as file:
            for n in range(20_000):
                file.write(json.dumps({"n": n, "text": "x" * 500}) + "\n")
        tracemalloc.start()
        try:
            assert sum(1 for _ in open_dataset(path).rows()) == 20_000
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < path.stat().st_size / 10


class TestJson:
    def test_an_array(self, tmp_path):
        path = tmp_path / "d.json"
        path.write_text('[{"a": 1}, ["b"], 3]')
        dataset = open_dataset(path)
        assert dataset.length == 3
        assert list(dataset.rows()) == [{"a": 1}, ["b"], 3]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [('{"rows": []}', "an object, not an array"), ("5", "one value, not"), ("[1,\n2,]", "d.json, line 2: no JSON")],
    )
    def test_what_is_no_array(self, tmp_path, text, problem):
        path = tmp_path / "d.json"
        path.write_text(text)
        with pytest.raises(DatasetError, match=problem):
            list(open_dataset(path).rows())


class TestParquet:
    def test_rows_in_batches(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        rows = [{"a": n, "b": [str(n)]} for n in range(3000)]
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
        dataset = open_dataset(tmp_path / "d.parquet", columns=("b", "a"))
        assert (dataset.columns, dataset.length) == (("a", "b"), 3000)
        assert list(dataset.rows()) == rows
        with pytest.raises(ColumnError, match="no column 'c'"):
            open_dataset(tmp_path / "d.parquet", columns=("c",))

    def test_a_file_that_is_none(self, tmp_path):
        pytest.importorskip("pyarrow")
        (tmp_path / "d.parquet").write_text("no")
        with pytest.raises(DatasetError, match="is no Parquet file"):
            open_dataset(tmp_path / "d.parquet")

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        (tmp_path / "d.parquet").write_bytes(b"PAR1")
        real = builtins.__import__

        def without_pyarrow(name, *args, **kwargs):
            if name.partition(".")[0] == "pyarrow":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_pyarrow)
        with pytest.raises(DatasetError, match="needs pyarrow") as raised:
            open_dataset(tmp_path / "d.parquet")
        assert raised.value.remedy == "Install it: pip install pyarrow"


class TestPaths:
    def test_beside_the_evaluation_file_first_then_here(self, tmp_path, monkeypatch):
        beside, here = tmp_path / "beside", tmp_path / "here"
        for place in (beside, here):
            place.mkdir()
            (place / "both.jsonl").write_text(json.dumps(place.name))
        (here / "only_here.jsonl").write_text('"here"')
        monkeypatch.chdir(here)
        assert list(open_dataset("both.jsonl", base=beside).rows()) == ["beside"]
        assert list(open_dataset("only_here.jsonl", base=beside).rows()) == ["here"]
        assert list(open_dataset(Path("both.jsonl")).rows()) == ["here"]
        assert list(open_dataset(str(beside / "both.jsonl"), base=here).rows()) == ["beside"]

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(DatasetError, match=r"no file 'gone.csv'") as raised:
            open_dataset("gone.csv", base=tmp_path)
        assert str(tmp_path / "gone.csv") in raised.value.remedy

    def test_a_directory_is_no_file(self, tmp_path):
        (tmp_path / "d.csv").mkdir()
        with pytest.raises(DatasetError, match="no file"):
            open_dataset("d.csv", base=tmp_path)

    def test_an_unknown_kind(self):
        with pytest.raises(DatasetError, match=r"'data.xlsx' is no dataset") as raised:
            open_dataset("data.xlsx")
        assert ".csv" in raised.value.remedy

    def test_the_fingerprint_is_of_the_content(self, tmp_path):
        for name, text in (("a.csv", "x\n1\n"), ("b.csv", "x\n1\n"), ("c.csv", "x\n2\n")):
            (tmp_path / name).write_text(text)
        a, b, c = (open_dataset(tmp_path / name).fingerprint for name in ("a.csv", "b.csv", "c.csv"))
        assert a == b != c
        assert a.startswith("blake2b-parts:")

    def test_the_fingerprint_is_of_every_part_and_of_their_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_PART", 8)
        monkeypatch.setattr(files, "_BLOCK", 3)
        start = "x\n" + "a" * 6 + "\n"
        texts = [
            start + end for end in ("bbbbbbb\nccccccc\n", "ccccccc\nbbbbbbb\n", "bbbbbbb\nccccccd\n", "bbbbbbb\n", "")
        ]
        (tmp_path / "a.csv").write_text(texts[0])
        same = open_dataset(tmp_path / "a.csv").fingerprint
        found = set()
        for text in texts:
            (tmp_path / "b.csv").write_text(text)
            found.add(open_dataset(tmp_path / "b.csv").fingerprint)
        assert same in found
        assert len(found) == len(texts)


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

    def test_polars_by_its_shape(self):
        class Frame:
            columns = ("a", "b")

            def __len__(self):
                return 1

            def iter_rows(self):
                yield (1, 2)

        assert list(open_dataset(Frame()).rows()) == [{"a": 1, "b": 2}]


class HuggingFace:
    """The shape of datasets.Dataset, which is not installed for the tests."""

    features = {"text": "string", "label": "int64"}  # noqa: RUF012
    column_names = ["text", "label"]  # noqa: RUF012
    num_rows = 2
    _fingerprint = "0123abcd"

    def __len__(self):
        return 2

    def __iter__(self):
        return iter([{"text": "a", "label": 0}, {"text": "b", "label": 1}])


class StreamingHuggingFace:
    """The shape of datasets.IterableDataset before its features are known."""

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

    def test_streaming(self):
        dataset = open_dataset(StreamingHuggingFace(), columns=("text",))
        assert (dataset.columns, dataset.length, dataset.fingerprint, dataset.reiterable) == (None, None, None, True)
        assert len(list(dataset.rows())) == 2

    def test_splits_must_be_chosen(self):
        with pytest.raises(DatasetError, match="splits train, test") as raised:
            open_dataset({"train": HuggingFace(), "test": HuggingFace()})
        assert raised.value.remedy == "Choose one: dataset['train']."


class Squares(Dataset):
    name = "squares"
    splits = ("train", "test")
    columns = ("n", "square")

    def __init__(self, split, limit=3):
        self.split = split
        self.num_rows = limit
        # A dataset's own attributes may be called like anything.
        self.length = "mine"
        self.fingerprint = "squares-v1"
        self.rows = [(n, n * n) for n in range(limit)]

    def __iter__(self):
        return iter(self.rows)


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(datasets_registry.plugins, "_registered", {})
    monkeypatch.setattr(datasets_registry.plugins, "_announced", {})
    return datasets_registry.plugins


class TestRegistry:
    def test_registered(self, clean_registry):
        register("squares", Squares)
        assert registered("squares") is Squares
        assert available() == ("squares",)
        assert list_available() == ["squares"]
        dataset = open_dataset(registered("squares")("test", limit=2))
        assert (dataset.columns, dataset.length, dataset.fingerprint) == (("n", "square"), 2, "squares-v1")
        assert list(dataset.rows()) == [(0, 0), (1, 1)]

    def test_information_without_an_instance(self, clean_registry):
        register("squares", Squares)
        assert get_dataset_info("squares") == {
            "name": "squares",
            "splits": ["train", "test"],
            "columns": ["n", "square"],
            "num_rows": None,
        }

    def test_an_unknown_name(self, clean_registry):
        register("squares", Squares)
        with pytest.raises(NotFoundError, match="no dataset named 'sqares'") as raised:
            registered("sqares")
        assert raised.value.remedy == "Did you mean 'squares'?"
        with pytest.raises(NotFoundError) as raised:
            registered("gsm8k")
        assert raised.value.remedy == "There are: squares."

    def announce(self, monkeypatch, plugins, *points):
        entries = [importlib.metadata.EntryPoint(name, value, "doteval.datasets") for name, value in points]
        monkeypatch.setattr(
            "doteval.plugins.entry_points", lambda group: entries if group == "doteval.datasets" else []
        )
        plugins.refresh()

    def test_a_package_announces_one(self, clean_registry, monkeypatch):
        self.announce(monkeypatch, clean_registry, ("squared", f"{__name__}:Squares"), ("broken", "no_such_module:X"))
        assert available() == ("broken", "squared")
        # By the entry point's name, and by the name that the class gives itself.
        assert registered("squared").name == "squares"
        assert registered("squares").name == "squares"
        with pytest.raises(UsageError, match="no_such_module cannot be loaded"):
            registered("broken")
        with pytest.raises(NotFoundError):
            registered("unknown")
