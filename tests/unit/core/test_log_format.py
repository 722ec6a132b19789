"""Log lines hide passwords, and a long text neither stops a process nor fills a disk."""

from __future__ import annotations

import json
import logging

import pytest

from doteval.core.log_format import JsonLines, TextLines, line

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw@h/0", "redis://:***@h/0"),
        (
            "at postgresql://u:p%40w@h:1/x and redis://h:6379/0 x@y",
            "at postgresql://u:***@h:1/x and redis://h:6379/0 x@y",
        ),
        ("'redis://u:p@h'", "'redis://u:***@h'"),
        ("http://h/a?b=redis://u:p@h", "http://h/a?b=redis://u:***@h"),
        ("redis://u:a/b:c@h", "redis://u:***@h"),
        ("://:@ x://a@b mail me@x.org see http://h:80/x", "://:***@ x://a@b mail me@x.org see http://h:80/x"),
    ],
)
def test_passwords_in_urls_are_hidden(text: str, shown: str) -> None:
    assert json.loads(line(text))["event"] == shown


# A pattern that looks at a character again and again needs minutes for one of these.
@pytest.mark.parametrize(
    "unit",
    ["a", "://:", "a://b:", "@", "a:b@", "a://b:c@", "x " * 20, "'://", "://?", "://?key", "://?key=", "://&a=b?"],
)
@pytest.mark.parametrize("formatter", [JsonLines(), TextLines("%(message)s")])
def test_a_megabyte_in_a_log_line(formatter: logging.Formatter, unit: str) -> None:
    text = unit * (MEGABYTE // len(unit))
    record = logging.LogRecord("mine", logging.INFO, __file__, 1, "the reply was %s", (text,), None)
    shown = formatter.format(record)
    assert len(shown) < 31_000
    assert " characters)" in shown


def test_a_password_at_the_cut_is_hidden() -> None:
    for length in range(9_980, 10_001):
        assert "hush" not in line("x" * length + " redis://u:hush@h")
