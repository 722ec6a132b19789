"""What GitHub is given: no name, reason or figure can end a command, a cell or a block, or become markup."""

from __future__ import annotations

import html
import re

import pytest

from doteval.analysis.judgement import Judgement
from doteval.analysis.thresholds import MissedThreshold
from doteval.cli.github import error_commands, markdown
from doteval.core.experiments import EvaluationStatus
from tests.support.judgements import judged

HOSTILE = [
    "a|b\\|c",
    "</code></td><script>alert(1)</script>",
    "**bold** __init__ _x_ `code` [link](http://x) ![image](http://x)",
    "@everyone #1 ~~gone~~ $x$",
    "one\ntwo\r\n| three |",
]


def located(path: str) -> str:
    return f"below/{path}"


@pytest.mark.parametrize(
    ("name", "reason", "line"),
    [
        ("eval_qa", "too low", "::error file=below/evals/eval_qa.py,title=eval_qa::too low"),
        (
            "eval_qa[a,b:c]",
            "100% wrong, by a: b",
            "::error file=below/evals/eval_qa.py,title=eval_qa[a%2Cb%3Ac]::100%25 wrong, by a: b",
        ),
        (
            "eval\n::error::x",
            "one\r\n::set-output name=x::y %0A",
            (
                "::error file=below/evals/eval_qa.py,title=eval%0A%3A%3Aerror%3A%3Ax"
                "::one%0D%0A::set-output name=x::y %250A"
            ),
        ),
        ("red\x1b[1m", "\x00", "::error file=below/evals/eval_qa.py,title=red\ufffd[1m::\ufffd"),
    ],
)
def test_annotations(name: str, reason: str, line: str) -> None:
    assert list(error_commands(Judgement("nightly", (judged(name, reason),)), located)) == [line]


def test_only_what_does_not_pass_is_annotated() -> None:
    evaluations = (
        judged("eval_good"),
        judged("eval_bad", "too low", "worse"),
        judged("eval_skipped", status=EvaluationStatus.SKIPPED),
    )
    missed = (MissedThreshold("no evaluation has this score"),)
    found = list(error_commands(Judgement("nightly", evaluations, missed, unrecorded=("no column",)), located))
    assert found == [
        "::error file=below/evals/eval_qa.py,title=eval_bad::too low%0Aworse",
        "::error title=doteval::no evaluation has this score%0Ano column",
    ]


def cells(line: str) -> list[str]:
    return [html.unescape(cell.strip()) for cell in line.strip("|").split("|")]


def test_the_metrics_are_a_table() -> None:
    passed = Judgement("nightly", (judged("eval_qa", path="evals/x.py"),))
    lines = markdown(passed).splitlines()
    assert lines[1] == "## doteval: passed"
    (row,) = [line for line in lines if "accuracy" in line]
    assert cells(row) == [
        *("<code>evals/x.py::eval_qa</code>", "completed", "<code>right</code>", "<code>accuracy</code>"),
        *("0.750", "0.500 – 0.875", "38", "8", "2"),
    ]
    assert "8 of 38 rows failed" in markdown(passed)
    failed = Judgement("nightly", (judged("eval_qa", "right.accuracy is 0.75, under 0.9"),))
    assert "## doteval: not passed\n" in markdown(failed)
    assert "```\nright.accuracy is 0.75, under 0.9\n```" in markdown(failed)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_in_their_cell(name: str) -> None:
    lines = markdown(Judgement(name, (judged(name, path="x.py", score=name),))).splitlines()
    (row,) = [line for line in lines if "accuracy" in line]
    shown = " ".join(name.split())
    assert row.count("|") == 10
    assert cells(row)[:3] == [f"<code>x.py::{shown}</code>", "completed", f"<code>{shown}</code>"]
    raw = row.replace("<code>", "").replace("</code>", "")
    assert not re.search(r"[<>`*\[\]@$~\\!]|(?<!\w)_|_(?!\w)", raw)
    assert f"Experiment {row.split('|')[3].strip()}" in lines


@pytest.mark.parametrize("reason", [*HOSTILE, "```\nout\n````"])
def test_reasons_stay_in_their_block(reason: str) -> None:
    lines = markdown(Judgement("nightly", (judged("eval_qa", reason),))).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("```"))
    end = lines.index(lines[start], start + 1)
    shown = reason.replace("\r", "\N{REPLACEMENT CHARACTER}").split("\n")
    assert lines[start + 1 : end] == shown
    assert all(not line.startswith(lines[start]) for line in shown)


def test_a_comment_is_never_too_long() -> None:
    many = tuple(judged(f"eval_{number}" + "&" * 300, "low " * 1000, score="<" * 300) for number in range(2000))
    body = markdown(Judgement("&" * 9999, many))
    assert len(body) < 65_536
    assert re.search(r"1,9\d\d more lines are in `doteval show`", body)
    assert re.search(r"\.\.\. and 1,9\d\d more lines", body)
