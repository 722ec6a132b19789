"""`doteval export --calls`: the call journal as JSON lines."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from doteval.core.call_journal import CallSource, FinishedCall
from doteval.store import GroupWriter, NewCall, Store
from tests.support.cli import CommandLine

pytestmark = pytest.mark.usefixtures("without_settings")
# More than are read at once.
ROWS = 130


def journal(storage: str) -> None:
    """Give the first evaluation of "alpha" two calls in each of `ROWS` rows."""
    with Store.open(storage) as store:
        evaluation, *_ = store.evaluations.of(store.experiments.find("alpha"))
        with closing(GroupWriter(store, None)) as writer:
            for index in range(ROWS):
                for position, reply in enumerate((b'{"text": "gr\xc3\xbc\xc3\x9fe"}', b"data: [DONE]\n\n")):
                    call = FinishedCall(
                        *(b"d", position, CallSource.LIVE, "m", 200, 1000.0, 0.5, "/chat/completions"),
                        request=b'{"n": %d}' % index,
                        reply=reply,
                    )
                    writer.put_calls([NewCall(evaluation.id, index, 0, 7, call)])


def test_all_calls_are_written_in_the_order_of_their_rows(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    journal(results)
    path = tmp_path / "calls.jsonl"
    ran = doteval_("export", "alpha", str(path), "--calls", "--storage", results)
    assert (ran.code, ran.err) == (0, f"Wrote {2 * ROWS} calls to {path}\n")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["index"], line["position"]) for line in lines] == [(n // 2, n % 2) for n in range(2 * ROWS)]
    assert (lines[5]["experiment"], lines[5]["source"], lines[5]["request"]) == ("alpha", "live", {"n": 2})
    assert [line["reply"] for line in lines[:2]] == [{"text": "grüße"}, "data: [DONE]\n\n"]
    document = json.loads(doteval_("export", "alpha", str(path), "--calls", "--storage", results, "--json").out)
    assert (document["calls"], document["pending"]) == (2 * ROWS, None)


def test_other_forms_are_refused(doteval_: CommandLine, results: str, tmp_path: Path) -> None:
    for more in (("c.csv",), ("c.jsonl", "--where", "index = 1"), ("c.jsonl", "--columns", "index")):
        ran = doteval_("export", "alpha", str(tmp_path / more[0]), *more[1:], "--calls", "--storage", results)
        assert ran.code == 2
        assert "--calls writes JSON lines of all calls" in ran.err
        assert not (tmp_path / more[0]).exists()
