"""What a reader of a dataset returns equals what was written, or an error names the place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doteval.core.json_codec import decode, encode_columns
from doteval.datasets import open_dataset, row_values
from doteval.errors import DatasetError

NAMES = st.lists(st.from_regex(r"[a-z]{1,3}", fullmatch=True), min_size=1, max_size=4, unique=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
# Text that is all separators, quotes and line ends.
TRICKY = st.text(st.sampled_from('",\t\r\n a'), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001
KINDS = {
    "int8()": st.integers(-128, 127),
    "uint64()": st.integers(0, 2**64 - 1),
    "float64()": st.floats(allow_nan=False),
    "string()": TEXT,
    "binary()": st.binary(max_size=8),
    "bool_()": st.booleans(),
    "date32()": st.dates(date(1700, 1, 1), date(2200, 1, 1)),
    "decimal128(38, 2)": st.decimals(-(10**30), 10**30, places=2),
    'timestamp("s")': MOMENTS.map(lambda moment: moment.replace(microsecond=0)),
    'timestamp("us")': MOMENTS,
    'timestamp("ns")': MOMENTS,
    'timestamp("us", "Europe/Vienna")': MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC)),
    'duration("us")': st.timedeltas(timedelta(-9999), timedelta(9999)),
    "list_(pyarrow.int32())": st.lists(st.integers(0, 9), max_size=3),
    'struct([("a", pyarrow.string())])': st.fixed_dictionaries({"a": TEXT}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


def write(folder: Path, name: str, content: bytes, packed: bool) -> Path:
    path = folder / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    names = draw(NAMES)
    cells = st.lists(TEXT | TRICKY, min_size=len(names), max_size=len(names))
    return names, draw(st.lists(cells, max_size=6))


class TestCsv:
    @given(tables(), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.sampled_from([".csv", ".tsv"]), st.data())
    def test_what_the_csv_module_writes(self, folder, table, quoting, suffix, data):
        names, rows = table
        # The module quotes only the line ends that it writes itself.
        ends = ["\r\n", "\n", "\r"] if quoting == csv.QUOTE_ALL else ["\r\n"]
        text = io.StringIO()
        writer = csv.writer(
            text,
            delimiter="\t" if suffix == ".tsv" else ",",
            quoting=quoting,
            lineterminator=data.draw(st.sampled_from(ends)),
        )
        writer.writerows([names, *rows])
        encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))
        path = write(folder, f"written{suffix}", text.getvalue().encode(encoding), data.draw(st.booleans()))
        assert list(open_dataset(path).rows()) == [dict(zip(names, row, strict=True)) for row in rows]
        wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        chosen = [{name: row[names.index(name)] for name in wanted} for row in rows]
        assert list(open_dataset(path, columns=tuple(wanted)).rows()) == chosen

    @given(st.text(st.sampled_from('",\r\n ab'), max_size=30))
    @example('a,b\n"a,b\na,b')
    @example('a,b\n"a,b\n"a",b')
    @example("a,b\na\n")
    @example("a,b\na,b,\n")
    @example("a,b\n \n")
    def test_any_text_is_read_as_the_rules_say_or_refused(self, folder, text):
        path = write(folder, "any.csv", text.encode(), packed=False)
        expected = parse_strictly(text)
        if expected is None:
            with pytest.raises(DatasetError, match=r"any\.csv(, line \d+: | is empty| has the column)"):
                list(open_dataset(path).rows())
        else:
            assert list(open_dataset(path).rows()) == expected


def parse_strictly(text: str) -> list[dict[str, str]] | None:
    """The rows by RFC 4180, read character by character; None for text that is malformed, ragged or empty."""
    records: list[list[str]] = []
    cells: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == '"':
            quoted = re.compile(r'"((?:[^"]|"")*)"(?=[,\r\n]|\Z)').match(text, at)
            if quoted is None:
                return None
            cells.append(quoted[1].replace('""', '"'))
            at = quoted.end()
        else:
            plain = re.compile(r"[^,\r\n]*").match(text, at)
            cells.append(plain[0])
            at = plain.end()
        if text.startswith(",", at):
            at += 1
            if at < len(text):
                continue
            cells.append("")
        end = re.compile(r"\r\n|\r|\n|\Z").match(text, at)
        # A line without any character is no record.
        if cells != [""] or text[end.start() - 1 : end.start()] == '"':
            records.append(cells)
        cells = []
        at = end.end()
    if not records:
        return None
    names = [name.strip() for name in records[0]]
    if len(set(names)) < len(names) or any(len(record) != len(names) for record in records):
        return None
    return [dict(zip(names, record, strict=True)) for record in records[1:]]


class TestJson:
    @given(st.lists(JSON, max_size=6), st.booleans(), st.booleans(), st.sampled_from(["\n", "\r\n", "\n \n"]))
    def test_any_values(self, folder, rows, escaped, packed, end):
        lines = [json.dumps(row, ensure_ascii=escaped) for row in rows]
        path = write(folder, "any.jsonl", end.join(lines).encode(), packed)
        if len(rows) == 1 and isinstance(rows[0], list) and all(isinstance(each, dict | list) for each in rows[0]):
            with pytest.raises(DatasetError, match=r"any\.jsonl(\.gz)? is one JSON array"):
                list(open_dataset(path).rows())
        else:
            assert repr(list(open_dataset(path).rows())) == repr(rows)
        text = json.dumps(rows, ensure_ascii=escaped, indent=len(end) - 1)
        assert repr(list(open_dataset(write(folder, "any.json", text.encode(), packed)).rows())) == repr(rows)

    @given(st.lists(st.dictionaries(TEXT, JSON, max_size=3), min_size=1, max_size=5), st.data())
    def test_a_file_that_was_cut_loses_whole_lines_or_is_refused(self, folder, rows, data):
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        content = b"".join(lines)
        cut = content[: data.draw(st.integers(0, len(content) - 1))]
        left = cut.split(b"\n")
        complete = len(left) if left[-1] + b"\n" == lines[len(left) - 1] else len(left) - 1
        reading = open_dataset(write(folder, "cut.jsonl", cut, packed=False)).rows()
        assert [next(reading) for _ in range(complete)] == rows[:complete]
        if left[-1] and complete < len(left):
            with pytest.raises(DatasetError, match=rf"cut\.jsonl, line {len(left)}: not JSON"):
                next(reading)
        else:
            assert list(reading) == []


class TestParquetAndFrames:
    @settings(max_examples=25)
    @given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=4), st.integers(0, 4), st.data())
    def test_values_are_stored_and_given_back_as_they_were(self, folder, kinds, count, data):
        import pyarrow
        from pyarrow import parquet

        arrays, written = [], {}
        for place, kind in enumerate(kinds):
            values = data.draw(st.lists(st.none() | KINDS[kind], min_size=count, max_size=count))
            arrays.append(pyarrow.array(values, eval(f"pyarrow.{kind}", {"pyarrow": pyarrow})))
            written[f"c{place}"] = values
        table = pyarrow.Table.from_arrays(arrays, list(written))
        parquet.write_table(table, folder / "any.parquet")
        wanted = tuple(data.draw(st.lists(st.sampled_from(list(written)), min_size=1, unique=True)))
        expected = [{name: written[name][row] for name in wanted} for row in range(count)]
        found = list(open_dataset(folder / "any.parquet", columns=wanted).rows())
        assert found == expected
        assert [decode(encode_columns(row_values(wanted, row))) for row in found] == expected

    def test_a_frame_of_pandas(self):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(
            {
                "at": pandas.to_datetime(["2024-01-01 00:00:00.000000001", None]),
                "n": pandas.array([1, None], dtype="Int64"),
                "text": pandas.array(["a", None], dtype="string"),
                "took": pandas.to_timedelta(["1ns", None]),
                "kind": pandas.Categorical(["x", "y"]),
                "parts": [numpy.array(["p", None], dtype=object), numpy.array([1.5])],
            }
        )
        columns = tuple(frame.columns)
        rows = [decode(encode_columns(row_values(columns, row))) for row in open_dataset(frame, columns=columns).rows()]
        parts = [row.pop("parts") for row in rows]
        assert rows[0] == {
            "at": pandas.Timestamp("2024-01-01 00:00:00.000000001"),
            "n": 1,
            "text": "a",
            "took": pandas.Timedelta("1ns"),
            "kind": "x",
        }
        assert [rows[1]["at"], rows[1]["n"], rows[1]["took"], rows[1]["kind"]] == [
            pandas.NaT,
            pandas.NA,
            pandas.NaT,
            "y",
        ]
        assert pandas.isna(rows[1]["text"])
        assert [part.tolist() for part in parts] == [["p", None], [1.5]]
