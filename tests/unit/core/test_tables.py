"""Tables for terminals: whatever the width, every cell is there and whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from doteval.core.tables import Cell, Table, columns_of


def figures() -> Table:
    table = Table("evaluation", "metric", "value", "95% interval", "n", left=2)
    table.add_row(
        "eval_words[gpt-small]", "exact_match.accuracy", Cell("0.6452", "bold"), "0.4692 to 0.7885", "1,234,567"
    )
    table.add_row("eval_行名字很长很长", "label.mean", "-", "", "3")
    return table


def errors() -> Table:
    table = Table("error", "rows", "message", prose=True)
    table.add_row("ValueError", "12", "no such word in the lexicon of words that everybody may use at any time")
    table.add_row("SomeVeryLongErrorNameOfALibrary", "1", "一二三四五六七八九十" * 4)
    return table


def drawn(table: Table, width: int) -> list[str]:
    return ["".join(cell.text for cell in line) for line in table.lines(width, rule="-")]


@pytest.mark.parametrize("width", [160, 100, 80, 60, 40])
@pytest.mark.parametrize("make", [figures, errors])
def test_every_cell_is_whole_at_any_width(make: Callable[[], Table], width: int) -> None:
    lines = drawn(make(), width)
    shown = " ".join(" ".join(lines).split())
    for word in " ".join(drawn(make(), 1000)).replace("-" * 20, " ").strip("-").split():
        assert word.strip("-") in shown, lines
    # Only a word may be longer, which is not broken.
    longest = max(columns_of(word) for line in lines for word in line.split())
    assert max(map(columns_of, lines)) <= max(width, longest + 40)


def test_a_table_that_fits_has_a_line_for_each_row() -> None:
    lines = drawn(figures(), 88)
    assert lines[0] == "evaluation             metric                 value      95% interval          n"
    assert lines[2] == "eval_words[gpt-small]  exact_match.accuracy  0.6452  0.4692 to 0.7885  1,234,567"
    # East Asian characters take two columns.
    assert lines[3] == "eval_行名字很长很长    label.mean                 -                            3"
    assert len(lines) == 4


def test_a_table_that_is_one_column_too_wide_is_stacked() -> None:
    assert drawn(figures(), 80)[0].startswith("evaluation ")
    assert drawn(figures(), 79) == [
        "evaluation    eval_words[gpt-small]",
        "metric        exact_match.accuracy",
        "value         0.6452",
        "95% interval  0.4692 to 0.7885",
        "n             1,234,567",
        "",
        "evaluation    eval_行名字很长很长",
        "metric        label.mean",
        "value         -",
        "95% interval",
        "n             3",
    ]


def test_prose_continues_below_itself() -> None:
    table = Table("error", "rows", "message", prose=True)
    table.add_row("ValueError", "12", "no such word in the lexicon of words that everybody may use")
    assert drawn(table, 50) == [
        "error       rows  message",
        "-" * 50,
        "ValueError    12  no such word in the lexicon of",
        "                  words that everybody may use",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red \x1b[31m", "red \ufffd[31m"),
        ("backwards \u202egnp.exe\u202c", "backwards \ufffdgnp.exe\ufffd"),
        ("isolates \u2066a\u2069 \u200e\u200f\u061c", "isolates \ufffda\ufffd \ufffd\ufffd\ufffd"),
        ("c1 \x9b31m \x85 del \x7f bell \x07", "c1 \ufffd31m \ufffd del \ufffd bell \ufffd"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("naïve 名 👩‍🔬", "naïve 名 👩‍🔬"),
    ],
)
def test_cells_hold_no_control_characters(text: str, shown: str) -> None:
    table = Table("name", "n")
    table.add_row(text, "1")
    assert drawn(table, 80)[2].startswith(shown)
    assert " ".join(drawn(table, 5)[:-1]).split() == ["name", *shown.split()]
