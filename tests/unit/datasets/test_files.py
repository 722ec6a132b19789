"""Datasets in files: CSV, JSON Lines, JSON and Parquet, how paths are resolved, and fingerprints."""

from __future__ import annotations

import builtins
import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from doteval.datasets import file_dataset, open_dataset
from doteval.errors import ColumnError, DatasetError


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

    @pytest.mark.parametrize(
        ("name", "text", "problem", "remedy"),
        [
            (
                "d.csv",
                "q,a\nWho, me?,yes\n",
                "d.csv, line 2: 3 cells, but the header names 2 columns",
                "comma in quotes",
            ),
            ("d.csv", 'q,a\n"x\ny",1\n"z\n",1,\n', "line 4: 3 cells, but .* 2 columns", "comma in quotes"),
            ("d.tsv", "q\ta\n1\t2\t3\t4\n", "line 2: 4 cells, but .* 2 columns", "tab in quotes"),
            ("d.csv", "q,a,b\n1,2,3\n\n1,2\n", "line 4: 2 cells, but .* 3 columns", "Add the missing cells"),
            ("d.csv", "q,a\nsecret\n", "line 2: 1 cell, but .* 2 columns", "Add the missing cells"),
            ("d.csv", "q\n1,2\n", "line 2: 2 cells, but the header names 1 column\n", "comma in quotes"),
            ("d.csv", "q,a\n1,2\n  \t\n", "line 3: the line has only blanks", "Delete the line"),
            ("d.csv", 'q,a\n"q1,yes\nq2,yes\nq3,yes\n', "line 2: a quote that opens .* ends at line 4", "Close the"),
            ("d.csv", 'q,a\n1,2\n3,"4', "line 3: a quote that opens", "Close the"),
            ("d.csv", 'q,a\n"q1,yes\n"q2",no\n', "line 2: not CSV: .* \\(at line 3, in the record", "twice"),
            ("d.csv", 'q,a\n"secret" one,yes\n', "line 2: not CSV: ',' expected after '\"'\n", "twice"),
            ("d.csv", '"q,a\n1,2\n', "line 1: a quote that opens", "Close the"),
        ],
    )
    def test_a_record_that_does_not_fit_is_named_by_its_first_line(self, tmp_path, name, text, problem, remedy):
        path = self.write(tmp_path / name, text)
        with pytest.raises(DatasetError, match=problem) as raised:
            list(open_dataset(path, columns=("q",)).rows())
        assert remedy in raised.value.remedy
        assert "secret" not in str(raised.value)

    def test_rows_have_only_the_columns_that_are_asked_for(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "a,b,c\n1,2,3\n")
        assert list(open_dataset(path, columns=("c", "a")).rows()) == [{"c": "3", "a": "1"}]

    def test_a_column_of_blanks_and_empty_text(self, tmp_path):
        path = self.write(tmp_path / "d.csv", 'a\n  \n\n""\nx\n')
        assert [row["a"] for row in open_dataset(path).rows()] == ["  ", "", "x"]

    def test_tabs_and_byte_order_mark(self, tmp_path):
        path = self.write(tmp_path / "d.TSV", "a\tb\n1\t2,3\n", encoding="utf-8-sig")
        assert list(open_dataset(path).rows()) == [{"a": "1", "b": "2,3"}]

    def test_semicolons_where_the_comma_is_the_decimal_sign(self, tmp_path):
        path = self.write(tmp_path / "d.csv", 'a;b\n1,5;"x;y"\n', encoding="utf-8-sig")
        assert list(open_dataset(path).rows()) == [{"a": "1,5", "b": "x;y"}]
        with pytest.raises(DatasetError, match=r"line 2: 3 cells, but .* 2 columns") as raised:
            list(open_dataset(self.write(tmp_path / "e.csv", "a;b\n1;2;3\n")).rows())
        assert "semicolon in quotes" in raised.value.remedy
        for text in ("a,b;c\n1,2;3\n", '"a;b"\n1\n'):
            assert len(open_dataset(self.write(tmp_path / "f.csv", text)).columns) == text.count(",") // 2 + 1

    def test_a_missing_column(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "question,answer\n1,2\n")
        with pytest.raises(ColumnError, match=r"d.csv has no column 'anwser'") as raised:
            open_dataset(path, columns=("question", "anwser"))
        assert raised.value.remedy == "Did you mean 'answer'?"
        assert open_dataset(path, columns=("answer",)).columns == ("question", "answer")

    def test_an_empty_file_is_refused(self, tmp_path):
        with pytest.raises(DatasetError, match=r"d.csv is empty"):
            open_dataset(self.write(tmp_path / "d.csv", "\n\n"))

    def test_a_column_that_is_there_twice_is_refused_if_it_is_asked_for(self, tmp_path):
        path = self.write(tmp_path / "d.csv", "a,b, a\n1,2,3\n")
        for columns in (None, ("a",), ("b", "a")):
            with pytest.raises(DatasetError, match=r"d.csv has the column 'a' twice: columns 1 and 3 of 3"):
                open_dataset(path, columns=columns)
        assert list(open_dataset(path, columns=("b",)).rows()) == [{"b": "2"}]

    def test_another_encoding_names_the_line(self, tmp_path):
        path = self.write(tmp_path / "d.csv", 'a\n"x\n"\n' + "x\n" * 5000 + "café\nx\n", encoding="latin-1")
        with pytest.raises(DatasetError, match=r"d.csv, line 5004: the text is not UTF-8"):
            list(open_dataset(path).rows())

    def test_long_cells(self, tmp_path):
        path = self.write(tmp_path / "d.csv", f"a\n{'x' * 500_000}\n")
        assert len(next(open_dataset(path).rows())["a"]) == 500_000


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

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('[{"a": 1}, {"a": 2}]\n', "d.jsonl is one JSON array of 2 values"),
            ('\n[["q", "a"], ["q", "b"], ["c", "d"]]', "d.jsonl is one JSON array of 3 values"),
            ("[]", "d.jsonl is one JSON array of 0 values"),
            ('[\n  {"a": 1}\n]\n', "line 1: not JSON: .*; the file seems to be one JSON array"),
            ('\n[{"a": 1},\n{"a": 2}]\n', "line 2: not JSON: .*; the file seems to be one JSON array"),
        ],
    )
    def test_one_array_is_named_as_such(self, tmp_path, text, problem):
        path = tmp_path / "d.jsonl"
        path.write_text(text)
        with pytest.raises(DatasetError, match=problem) as raised:
            list(open_dataset(path).rows())
        assert "Name a file that is one JSON array .json" in raised.value.remedy

    @pytest.mark.parametrize("text", ['["q", "a"]', '[["q"], "a"]', '[{"a": 1}]\n[{"a": 2}]'])
    def test_rows_that_are_arrays(self, tmp_path, text):
        path = tmp_path / "d.jsonl"
        path.write_text(text)
        assert list(open_dataset(path).rows()) == [json.loads(line) for line in text.splitlines()]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ('{"a": 1, "secret": 2, "secret": 3}', "an object has a name twice"),
            ('{"a": {"b": 1, "b": 1}}', "an object has a name twice"),
            ("1" * 5000, "an integer has too many digits"),
            ('{"a": [1e400]}', "a number is too large for a float"),
            ("-1.5e309", "a number is too large for a float"),
        ],
    )
    def test_values_that_would_be_lost_are_refused(self, tmp_path, line, problem):
        path = tmp_path / "d.jsonl"
        path.write_text(f'{{"a": 0}}\n{line}\n')
        with pytest.raises(DatasetError, match=f"d.jsonl, line 2: {problem}") as raised:
            list(open_dataset(path).rows())
        assert "secret" not in str(raised.value)
        (tmp_path / "d.json").write_text(f"[0, {line}]")
        with pytest.raises(DatasetError, match=f"d.json: {problem}"):
            list(open_dataset(tmp_path / "d.json").rows())

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

    def test_json_lines_are_named_as_such(self, tmp_path):
        (tmp_path / "d.json").write_text('{"a": 1}\n{"a": 2}\n')
        with pytest.raises(DatasetError, match=r"d.json, line 2: not JSON: Extra data") as raised:
            list(open_dataset(tmp_path / "d.json").rows())
        assert raised.value.remedy == "A file with one JSON value a line is named .jsonl."

    def test_another_encoding_names_the_line(self, tmp_path):
        (tmp_path / "d.json").write_bytes('[1,\n2,\n"café"]'.encode("latin-1"))
        with pytest.raises(DatasetError, match=r"d.json, line 3: the text is not UTF-8"):
            list(open_dataset(tmp_path / "d.json").rows())

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

    def test_only_the_columns_that_are_asked_for_are_read(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        path = tmp_path / "d.parquet"
        table = pyarrow.table({"a": [1, 2], "b": ["x" * 10_000] * 2, "a.c": [3, 4], "s": [{"t": 5}, {"t": None}]})
        parquet.write_table(table, path)
        assert list(open_dataset(path, columns=("s", "a")).rows()) == [
            {"s": {"t": 5}, "a": 1},
            {"s": {"t": None}, "a": 2},
        ]
        # The column chunk of "b" is overwritten: decoding it is an error.
        offset = parquet.ParquetFile(path).metadata.row_group(0).column(1).dictionary_page_offset
        content = bytearray(path.read_bytes())
        content[offset : offset + 20] = b"\xff" * 20
        path.write_bytes(content)
        assert [row["a"] for row in open_dataset(path, columns=("a",)).rows()] == [1, 2]
        with pytest.raises(DatasetError, match="after 0 rows"):
            list(open_dataset(path, columns=("b",)).rows())

    def test_a_column_that_is_there_twice(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2]), pyarrow.array([3])], ["a", "b", "a"])
        parquet.write_table(table, tmp_path / "d.parquet")
        with pytest.raises(DatasetError, match="'a' twice: columns 1 and 3 of 3"):
            open_dataset(tmp_path / "d.parquet", columns=("a",))

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


class TestCompressed:
    @pytest.mark.parametrize(
        ("name", "text", "rows"),
        [
            ("d.csv.gz", "a,b\n1,2\n", [{"a": "1", "b": "2"}]),
            ("d.TSV.GZ", "\ufeffa\tb\n1\t2\n", [{"a": "1", "b": "2"}]),
            ("d.jsonl.gz", '{"a": "ü"}\n[2]\n', [{"a": "ü"}, [2]]),
            ("d.json.gz", "[1,\n2]", [1, 2]),
        ],
    )
    def test_rows(self, tmp_path, name, text, rows):
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()))
        dataset = open_dataset(path)
        assert list(dataset.rows()) == rows
        assert dataset.fingerprint is not None

    def test_a_file_that_is_cut_or_damaged_is_refused(self, tmp_path):
        whole = gzip.compress("".join(f'{{"a": {n}}}\n' for n in range(5000)).encode())
        path = tmp_path / "d.jsonl.gz"
        damaged = bytearray(whole)
        # In the checksum, so that all rows come before the error.
        damaged[-5] ^= 0xFF
        for content in (whole[:-1], whole[: len(whole) // 2], bytes(damaged), b"no gzip", whole + b"more"):
            path.write_bytes(content)
            with pytest.raises(DatasetError, match=r"d.jsonl.gz cannot be read: \w+") as raised:
                list(open_dataset(path).rows())
            assert raised.value.remedy
        path.write_bytes(whole)
        assert len(list(open_dataset(path).rows())) == 5000

    def test_errors_name_the_line(self, tmp_path):
        path = tmp_path / "d.csv.gz"
        path.write_bytes(gzip.compress(b"a,b\n1,2\n1,2,3\n"))
        with pytest.raises(DatasetError, match=r"d.csv.gz, line 3: 3 cells"):
            list(open_dataset(path).rows())

    def test_parquet_within_gzip_is_refused(self, tmp_path):
        (tmp_path / "d.parquet.gz").write_bytes(b"")
        with pytest.raises(DatasetError, match="a Parquet file within a gzip file") as raised:
            open_dataset(tmp_path / "d.parquet.gz")
        assert "gunzip" in raised.value.remedy


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "shown", "remedy"),
        [
            (
                "https://user:hunter2@example.org/d.csv?sig=hunter2",
                "https://user:***@example.org/d.csv'",
                "Download it",
            ),
            ("s3://bucket/rows.jsonl", "'s3://bucket/rows.jsonl'", "Download it"),
            (Path("gs://bucket/d.parquet"), "'gs://bucket/d.parquet'", "Download it"),
            ("file:///data/d.csv", "'file:///data/d.csv'", "without file://"),
            ("HTTP://EXAMPLE.ORG/d", "'HTTP://EXAMPLE.ORG/d'", "Download it"),
        ],
    )
    def test_an_address_is_refused_by_name(self, address, shown, remedy):
        with pytest.raises(DatasetError, match="is an address, and doteval reads files only") as raised:
            open_dataset(address)
        assert shown in raised.value.message
        assert remedy in raised.value.remedy
        assert "hunter2" not in str(raised.value)

    def test_a_drive_is_no_scheme(self):
        with pytest.raises(DatasetError, match="there is no file"):
            open_dataset("c:/gone.csv")


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
        monkeypatch.setattr(file_dataset, "_PART_BYTES", 8)
        monkeypatch.setattr(file_dataset, "_BLOCK_BYTES", 3)
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
