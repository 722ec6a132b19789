"""Rows whose content a browser must not obey and a layout must not follow, and rows with all that a page shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from doteval.core.call_journal import CallSource, FinishedCall
from doteval.core.experiments import Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus, Score, Usage
from doteval.store import GroupWriter, NewCall, NewResult, Store

PIXEL = (
    "data:image/png;base64,"
    + base64.b64encode(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
            "1f15c4890000000d49444154789c6360f8ffff3f0005fe02fea735814d0000000049454e44ae426082"
        )
    ).decode()
)
SVG = "data:image/svg+xml;base64," + base64.b64encode(b"<svg onload='alert(1)'/>").decode()

# What each row is about, with the value of its column, its prompt and its response.
HOSTILE_TEXTS: dict[str, str] = {
    "script": "<script>document.title='obeyed'</script></pre></td><script src=//evil.example/x.js></script>",
    "handler": "<img src=x onerror=\"document.title='obeyed'\"><svg onload=document.title='obeyed'>",
    "link": "<a href=\"javascript:document.title='obeyed'\">here</a> [here](javascript:alert(1)) javascript:alert(1)",
    "attribute": "\" autofocus onfocus=\"document.title='obeyed'\" x='",
    "template": "{{ 7 * 7 }} {% for x in y %} ${7*7} <!-- --> ]]> </textarea></title></style>",
    "line": "x" * 1_000_000,
    "bidi": "user\u202e txt.exe \u2066 \u200f \u061c end",
    "nul": "before\x00after \x1b[31m red \x07 \x85 \u2028 \ud800",
    "marks": "Z\u0351\u036b\u0343" + "\u0361" * 5_000,
}
TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.11/site-packages/lib/call.py", line 7, in call
    return function()
  File "/home/ann/evals/eval_x.py", line 12, in eval_x
    raise ValueError("<b>no</b>")
ValueError: <b>no</b>
"""
_REQUEST = b'{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"1 + 1?"}]}'
_REPLY = b'{"choices":[{"message":{"role":"assistant","content":"<i>two</i>"}}]}'


def _row_contents() -> Sequence[tuple[dict[str, Any], Outcome]]:
    done = RowStatus.DONE
    hostile = [
        (
            {"kind": kind, "expected": text},
            Outcome(
                done,
                1e9,
                0.1,
                (Score(text[:200] or "empty", text[:300]), Score("match", False, metadata={text[:200]: text})),
                prompt=[{"role": text[:500], "content": text}],
                model_response=f"answer {text}",
                metadata={text[:300]: text},
            ),
        )
        for kind, text in HOSTILE_TEXTS.items()
    ]
    many = {f"key {number}": {"nested": [number, "<b>"]} for number in range(10_000)}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": each}}]} for each in (PIXEL, SVG)]
    return [
        *hostile,
        ({"kind": "keys", "value": many}, Outcome(done, 1e9, 0.1, prompt=many, model_response=many)),
        ({"kind": "image", "value": PIXEL}, Outcome(done, 1e9, 0.1, prompt=image, model_response=SVG)),
        (
            {"kind": "error"},
            Outcome(
                RowStatus.FAILED,
                1e9,
                2.5,
                error=RowError("ValueError", "<b>no</b>", ErrorClass.EVALUATION, TRACEBACK),
            ),
        ),
        (
            {"kind": "chat", "expected": "The answer is 2."},
            Outcome(
                done,
                1e9,
                0.7,
                (Score("judge", 0.0, metadata={"explanation": "It says three."}), Score("short", True)),
                prompt=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}],
                model_response="The answer is 3.",
                usage=(Usage("gpt-small", requests=1, prompt_tokens=20, completion_tokens=5, cost=0.25),),
            ),
        ),
        ({"kind": "pending"}, Outcome(RowStatus.PENDING, 0.0, 0.0)),
    ]


KINDS = [values["kind"] for values, _ in _row_contents()]


def add_odd_rows(store: Store, experiment: str = "odd") -> Evaluation:
    """Add an experiment with one row of each of `KINDS`; the row "chat" has calls."""
    columns = ("kind", "expected", "value")
    evaluation = store.evaluations.begin(store.experiments.begin(experiment), EvaluationSpec("o.py", "eval_o", columns))
    contents = _row_contents()
    rows = [Row(index, f"key{index}", values) for index, (values, _) in enumerate(contents)]
    store.rows.add(evaluation.id, rows)
    store.rows.set_total(evaluation.id, len(rows), complete=True, fingerprint="f")
    new = [
        NewResult(evaluation.id, row, outcome)
        for row, (_, outcome) in zip(rows, contents, strict=True)
        if outcome.status is not RowStatus.PENDING
    ]
    store.results.write(new, None)
    used = Usage("gpt-small", prompt_tokens=20, completion_tokens=5, cost=0.25)
    call = FinishedCall(b"d", 0, CallSource.LIVE, "gpt-small", 200, 1e9, 0.4, "/chat/completions", "application/json")
    calls = [
        FinishedCall(**{**_fields(call), "request": _REQUEST, "reply": _REPLY, "usage": used}),
        FinishedCall(**{**_fields(call), "position": 1, "status": 0, "error": "<u>away</u>", "request": _REQUEST}),
    ]
    with closing(GroupWriter(store, None)) as writer:
        writer.put_calls([NewCall(evaluation.id, KINDS.index("chat"), 0, 7, each) for each in calls]).result()
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED)
    return evaluation


def _fields(call: FinishedCall) -> dict[str, Any]:
    return {name: getattr(call, name) for name in FinishedCall.__dataclass_fields__}
