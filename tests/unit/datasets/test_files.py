"""Datasets in files: CSV, JSON Lines, JSON and Parquet, how paths are resolved, and fingerprints."""

from __future__ import annotations

import builtins
import csv
import io
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.datasets import files, open_dataset, row_values
from doteval.errors import ColumnError, DatasetError

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


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

    def test_a_missing_column(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "question,answer\n1,2\n")
        with pytest.raises(ColumnError, match=r"d.csv has no column 'anwser'") as raised:
            open_dataset(path, columns=("question", "anwser"))
        assert raised.value.remedy == "Did you mean 'answer'?"
        assert open_dataset(path, columns=("answer",)).columns == ("question", "answer")

    @pytest.mark.parametrize(("text", "problem"), [("", "d.csv is empty"), ("a,b,a\n", "'a' twice")])
    def test_headers_that_are_refused(self, tmp_path, text, problem):
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
    def test_the_output_of_the_csv_module_is_read_back(self, tmp_path_factory, rows):
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

    def test_an_error_names_the_line_and_not_its_content(self, tmp_path):
        path = tmp_path / "d.ndjson"
        path.write_text('{"a": 1}\n\n{"a": secret}\n')
        reading = open_dataset(path).rows()
        assert next(reading) == {"a": 1}
        with pytest.raises(DatasetError, match=r"d.ndjson, line 3: not JSON: .* column 7") as raised:
            next(reading)
        assert "secret" not in str(raised.value)
        assert raised.value.__cause__ is None

    @pytest.mark.parametrize(("line", "problem"), [(b'"caf\xe9"', "not UTF-8"), (b"[" * 200_000, "nested too deeply")])
    def test_lines_that_are_refused(self, tmp_path, line, problem):
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
        [
            ('{"rows": []}', "an object, not an array"),
            ("5", "one value, not"),
            ("[1,\n2,]", "d.json, line 2: not JSON"),
        ],
    )
    def test_json_that_is_not_an_array_is_refused(self, tmp_path, text, problem):
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

    def test_a_file_that_is_not_parquet(self, tmp_path):
        pytest.importorskip("pyarrow")
        (tmp_path / "d.parquet").write_text("no")
        with pytest.raises(DatasetError, match="is not a Parquet file"):
            open_dataset(tmp_path / "d.parquet")

    def test_parquet_without_pyarrow(self, tmp_path, monkeypatch):
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
    def test_a_path_is_relative_to_the_evaluation_file_then_to_the_current_directory(self, tmp_path, monkeypatch):
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

    def test_a_directory_is_refused(self, tmp_path):
        (tmp_path / "d.csv").mkdir()
        with pytest.raises(DatasetError, match="no file"):
            open_dataset("d.csv", base=tmp_path)

    def test_an_unknown_suffix(self):
        with pytest.raises(DatasetError, match=r"'data.xlsx' is not a dataset") as raised:
            open_dataset("data.xlsx")
        assert ".csv" in raised.value.remedy

    def test_the_fingerprint_depends_on_the_content(self, tmp_path):
        for name, text in (("a.csv", "x\n1\n"), ("b.csv", "x\n1\n"), ("c.csv", "x\n2\n")):
            (tmp_path / name).write_text(text)
        a, b, c = (open_dataset(tmp_path / name).fingerprint for name in ("a.csv", "b.csv", "c.csv"))
        assert a == b != c
        assert a.startswith("blake2b-parts:")

    def test_the_fingerprint_depends_on_every_part_and_their_order(self, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_PART_BYTES", 8)
        monkeypatch.setattr(files, "_BLOCK_BYTES", 3)
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
