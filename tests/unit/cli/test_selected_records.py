"""`doteval show` with a filter, an order, columns and groups, and records as people read them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from doteval.analysis.readable_values import as_text
from doteval.analysis.tracebacks import own_frames
from doteval.cli import terminal
from doteval.cli.readable import print_record
from doteval.core.experiments import EvaluationSpec
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.store import NewResult, Store
from tests.support.cli import CommandLine, line_with, words

pytestmark = pytest.mark.usefixtures("without_settings")


@pytest.fixture
def graded(tmp_path: Path) -> str:
    """A store with an experiment "x" of 60 rows in three languages: every third row wrong, row 7 failed."""
    path = str(tmp_path / "graded.db")
    with Store.open(path) as store:
        spec = EvaluationSpec("evals/eval_qa.py", "eval_qa", ("question", "lang"))
        evaluation = store.evaluations.begin(store.experiments.begin("x"), spec)
        rows = [
            Row(index, f"{index:032x}", {"question": f"q{index}", "lang": ("de", "en", "ja")[index % 3 or index % 2]})
            for index in range(60)
        ]
        store.rows.add(evaluation.id, rows)
        store.rows.set_total(evaluation.id, 60, complete=True, fingerprint=None)
        outcomes = [
            Outcome(
                RowStatus.DONE,
                1e9,
                index / 10,
                (Score("right", index % 3 != 0, ("accuracy",)), Score("f1", index / 60)),
                model_response="Sorry, no idea" if index % 20 == 0 else f"answer {index}",
                usage=(Usage("m", prompt_tokens=10 * index, completion_tokens=1),),
                metadata={"tool": "search" if index == 3 else "code", "steps": index} if index in (3, 4) else {},
            )
            for index in range(60)
        ]
        outcomes[7] = Outcome(RowStatus.FAILED, 1e9, 0.0, error=RowError("ValueError", "bad", ErrorClass.TIMEOUT))
        store.results.write([NewResult(evaluation.id, *each) for each in zip(rows, outcomes, strict=True)], None)
    return path


def indexes(doteval_: CommandLine, storage: str, *options: str) -> list[int]:
    ran = doteval_("show", "x", "--storage", storage, "--json", "--columns", "index", *options)
    assert ran.code == 0, ran.err
    (evaluation,) = json.loads(ran.out)["evaluations"]
    return [record["index"] for record in evaluation["records"]]


def test_records_are_selected(doteval_: CommandLine, graded: str) -> None:
    assert indexes(doteval_, graded, "--wrong") == list(range(0, 60, 3))
    assert indexes(doteval_, graded, "--failed") == [7]
    assert indexes(doteval_, graded, "--wrong", "--where", "row.lang = 'de' and tokens > 200") == [
        24,
        30,
        36,
        42,
        48,
        54,
    ]
    assert indexes(doteval_, graded, "--where", "response ~ 'SORRY' or error_class = 'timeout'") == [0, 7, 20, 40]
    assert indexes(doteval_, graded, "--sort", "-tokens", "--limit", "3") == [59, 58, 57]
    assert indexes(doteval_, graded, "--sort", "score.f1", "--limit", "0")[-1] == 7
    assert indexes(doteval_, graded) == list(range(20))
    assert indexes(doteval_, graded, "--limit", "0") == list(range(60))


def test_a_table_says_whether_there_is_more(doteval_: CommandLine, graded: str) -> None:
    ran = doteval_(
        "show", "x", "--storage", graded, "--sort", "-score.f1", "--columns", "key,attempts,score.f1", "--limit", "2"
    )
    lines = ran.out.splitlines()
    assert words(lines[1]) == ["key", "attempts", "score.f1"]
    assert words(lines[3]) == [f"{59:032x}", "1", "0.9833"]
    assert words(lines[4]) == [f"{58:032x}", "1", "0.9667"]
    assert lines[5] == "These are the first 2; --limit N shows N, and --limit 0 all"
    assert "the first" not in doteval_("show", "x", "--storage", graded, "--wrong", "--limit", "20").out
    assert "No results match." in doteval_("show", "x", "--storage", graded, "--where", "sample = 5").out


def test_metadata_are_fields(doteval_: CommandLine, graded: str) -> None:
    chosen = ("--columns", "index,metadata.tool", "--where", "metadata.steps >= 0", "--sort", "-metadata.steps")
    lines = doteval_("show", "x", "--storage", graded, *chosen).out.splitlines()
    assert [words(line) for line in (lines[1], *lines[3:5])] == [
        ["index", "metadata.tool"],
        ["4", "code"],
        ["3", "search"],
    ]
    grouped = doteval_("show", "x", "--storage", graded, "--group-by", "metadata.tool").out
    assert {words(line)[0] for line in grouped.splitlines() if " right " in line} == {"-", "code", "search"}
    ran = doteval_("show", "x", "--storage", graded, "--columns", "metadata.tol")
    assert (ran.code, ran.out) == (2, "")
    assert "no result has metadata 'tol'" in ran.err
    assert "Did you mean metadata.tool?" in ran.err


def test_full_prints_the_selected_records_only(doteval_: CommandLine, graded: str) -> None:
    out = doteval_("show", "x", "--storage", graded, "--failed", "--full").out
    assert "row 7  failed" in out
    assert "error: ValueError: bad" in out
    assert "row 8" not in out


def test_groups_have_means_with_intervals(doteval_: CommandLine, graded: str) -> None:
    options = ("show", "x", "--storage", graded, "--group-by", "row.lang")
    (evaluation,) = json.loads(doteval_(*options, "--json").out)["evaluations"]
    by_name = {group["group"]: group for group in evaluation["groups"]}
    # Rows 0, 6, 12 ... are of "de"; all of them are divisible by three.
    assert by_name["de"]["scores"]["right"] == {
        "mean": 0.0,
        "interval": [0.0, pytest.approx(0.2775, abs=1e-4)],
        "interval_method": "wilson",
        "n": 10,
    }
    english = by_name["en"]
    assert (english["results"], english["failed"]) == (30, 1)
    # Of 30 rows 10 are wrong, and the failed one counts as false.
    assert english["scores"]["right"]["mean"] == pytest.approx(19 / 30)
    excluded = json.loads(doteval_(*options, "--json", "--errors-as", "excluded").out)["evaluations"][0]["groups"]
    assert {group["group"]: group for group in excluded}["en"]["scores"]["right"]["mean"] == pytest.approx(19 / 29)
    assert words(line_with(doteval_(*options).out, "de  "))[:5] == ["de", "right", "0.000", "0.000", "–"]


@pytest.mark.parametrize(
    ("options", "place", "says"),
    [
        (("--where", "score.rihgt = 1"), "  score.rihgt = 1\n        ^\n", "Did you mean score.right?"),
        (("--where", "row.lng = 'de'"), "  row.lng = 'de'\n      ^\n", "row.lang"),
        (("--where", "tokens >> 5"), "  tokens >> 5\n          ^\n", "a number"),
        (("--where", "tokens > 5 and"), "  tokens > 5 and\n                ^\n", "ends too early"),
        (("--sort", "-speed"), "  speed\n  ^\n", "seconds"),
        (("--columns", "index,nonsense"), "  nonsense\n  ^\n", "index"),
        (("--group-by", "row.x"), "  row.x\n      ^\n", "no column 'x'"),
        (("--wrong", "--row", "1"), "", "--row"),
    ],
)
def test_errors_point_at_the_place(
    doteval_: CommandLine, graded: str, options: tuple[str, ...], place: str, says: str
) -> None:
    ran = doteval_("show", "x", "--storage", graded, *options)
    assert ran.code == 2
    assert place in ran.err
    assert says in ran.err


def test_a_row_by_its_key(doteval_: CommandLine, graded: str) -> None:
    ran = doteval_("show", "x", "--storage", graded, "--row", f"{33:032x}")
    assert "row 33  done" in ran.out
    assert doteval_("show", "x", "--storage", graded, "--row", "ffff").code == 2
    assert doteval_("show", "x", "--storage", graded, "--row", "60").code == 2
    assert "row 0  done" in doteval_("show", "x", "--storage", graded, "--row", "0" * 20).out


def printed(capsys: pytest.CaptureFixture[str], record: Record) -> str:
    print_record(terminal.console(), record)
    return capsys.readouterr().out


def test_a_conversation_json_and_a_difference_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1, "é"], "y": null}'}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is\nthis?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
                {"type": "input_image", "image_url": "https://example.org/a.png"},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [call, {"function": {"name": "h", "arguments": "{cut"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "c2", "output": "3"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
    ]
    score = Score("f1", 0.5, metadata={"reason": "half of it", "response": "paris"})
    row = Row(3, "k", {"question": {"a": [1, "ü"]}, "answer": "Paris\nFrance"}, 1)
    outcome = Outcome(RowStatus.DONE, 0.0, 0.5, (score,), prompt=messages, model_response="paris\nFrance")
    assert (
        printed(capsys, Record(row, outcome))
        == """\
row 3, sample 1  done  0.50 s  f1=0.5
  question:
    {
      "a": [
        1,
        "ü"
      ]
    }
  answer:
    Paris
    France
  prompt:
    system:
      Be brief.
    user:
      What is
      this?
      [image/png, 6 bytes]
      [image https://example.org/a.png]
    assistant:
      f(x=[1,"é"], y=null)
      h({cut)
    tool:
      found
    assistant:
      g()
    tool:
      3
    assistant:
      {
        "tool_calls": [
          {
            "id": "c1"
          }
        ]
      }
  response:
    paris
    France
    answer → response
    - Paris
    ? ^
    + paris
    ? ^
  f1, reason: half of it
"""
    )


TRACEBACK = """Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/pluggy/_callers.py", line 9, in call
    return run()
           ^^^^^
  File "/home/ann/evals/eval_qa.py", line 12, in eval_qa
    return parse(reply)
  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode
    raise JSONDecodeError
ValueError: no JSON"""


def test_the_frames_of_the_author_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert own_frames(TRACEBACK).splitlines() == [
        '  File "/home/ann/evals/eval_qa.py", line 12, in eval_qa',
        "    return parse(reply)",
        "ValueError: no JSON",
    ]
    assert own_frames("no frames at all") == ""
    assert own_frames('  File "/home/ann/a.py", line 1, in f\n    x\nValueError') == ""
    error = RowError("ValueError", "no JSON", traceback=TRACEBACK)
    out = printed(capsys, Record(Row(0, "k", {}), Outcome(RowStatus.FAILED, 0.0, 0.0, error=error)))
    assert out.index("in your code:") < out.index("eval_qa.py") < out.index("traceback:") < out.index("pluggy")


@pytest.mark.slow("starts a terminal of its own")
def test_a_terminal_gets_a_pager(graded: str, tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > {tmp_path}/paged\n")
    pager.chmod(0o700)
    controller, terminal_ = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "doteval", "show", "x", "--storage", graded, "--wrong"],
            env={**os.environ, "PAGER": str(pager)},
            stdout=terminal_,
            cwd=tmp_path,
            check=False,
        )
    finally:
        os.close(terminal_)
        os.close(controller)
    assert done.returncode == 0
    assert "score.right" in (tmp_path / "paged").read_text()


def test_no_difference_of_long_texts_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    # Lines that nearly equal each other are the worst case.
    texts = ["\n".join(f"{'x' * 500}{number}{mark}" for number in range(200)) for mark in "ab"]
    record = Record(Row(0, "k", {"answer": texts[0]}), Outcome(RowStatus.DONE, 0.0, 0.5, model_response=texts[1]))
    assert "answer → response" not in printed(capsys, record)


def test_many_short_lines_are_compared_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """If each line were compared with each by its characters, this would take minutes."""
    record = Record(
        Row(0, "k", {"answer": "a\n" * 4000 + "end"}),
        Outcome(RowStatus.DONE, 0.0, 0.5, model_response="b\n" * 4000 + "end"),
    )
    shown = printed(capsys, record).split("answer → response\n")[1]
    assert shown.count("    - a\n") == shown.count("    + b\n") == 4000
    assert "- end" not in shown


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ([{"role": "user", "content": "Hello"}], "Hello"),
        (
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            "system: Be brief.\nuser: Hi",
        ),
        ("plain", "plain"),
        ([1], "[\n  1\n]"),
    ],
)
def test_prompts_as_text(prompt: object, text: str) -> None:
    assert as_text(prompt) == text
