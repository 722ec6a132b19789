"""Writes logs in the formats of inspect-ai and dotevals, as fast tests need them.

`tests/integration/importing/test_foreign_tools.py` compares their shape with what the tools themselves write for the
same evaluation (`tests/support/peers`).
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 14):
    import zipfile
else:
    from backports.zstd import zipfile

ZSTANDARD: int = zipfile.ZIP_ZSTANDARD
DEFLATED: int = zipfile.ZIP_DEFLATED

_ROWS: list[dict[str, Any]] = [
    {"id": 1, "input": "capital?", "target": "Paris", "metadata": {"topic": "places", "id": "x"}},
    {
        "id": 2,
        "input": [
            {"id": "random", "content": "short", "role": "system"},
            {"id": "random", "content": "2+2", "role": "user"},
        ],
        "target": ["4", "four"],
        "metadata": {"topic": "sums"},
    },
    {"id": 3, "input": "colour?", "target": "red", "choices": ["red", "blue"], "metadata": {}},
]
_ANSWERS = {1: "Paris", 2: "four", 3: "red"}
_GRADES = {1: "C", 2: "P", 3: "N"}


def inspect_log(*, rows: Sequence[int] = (1, 2, 3), epochs: int = 2) -> dict[str, Any]:
    """A log as a `.json` file holds it: a successful evaluation in which the last sample of row 3 has failed."""
    samples = [_sample(row, epoch) for epoch in range(1, epochs + 1) for row in _ROWS if row["id"] in rows]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": "e1",
            "run_id": "r1",
            "created": "2026-11-01T10:00:00+00:00",
            "task": "questions",
            "task_id": "t1",
            "task_version": 0,
            "task_args": {},
            "task_args_passed": {},
            "tags": ["base", "two words"],
            "dataset": {"name": "questions", "samples": len(rows), "sample_ids": list(rows), "shuffled": False},
            "model": "mockllm/model",
            "config": {"epochs": epochs, "epochs_reducer": ["mean"], "fail_on_error": False},
            "packages": {"inspect_ai": "0.3.285"},
            "metadata": {"run": 7},
            "scorers": [
                {"name": "grade", "metrics": [{"name": "inspect_ai/accuracy"}, {"name": "inspect_ai/stderr"}]},
                {
                    "name": "judge",
                    "metrics": {
                        "tone": [{"name": "inspect_ai/mean"}],
                        "length": [{"name": "inspect_ai/mean"}, {"name": "inspect_ai/std"}],
                    },
                },
                {"name": "sometimes", "metrics": [{"name": "inspect_ai/mean"}]},
            ],
        },
        "results": {
            "total_samples": 6,
            "completed_samples": 5,
            "scores": [
                _figures("grade", "grade", accuracy=0.25, stderr=0.14433756729740646),
                _figures("tone", "judge", mean=0.5),
                _figures("length", "judge", mean=4.0, std=1.0),
                _figures("sometimes", "sometimes", mean=2.0),
            ],
        },
        "stats": {"started_at": "2026-11-01T10:00:00+00:00", "completed_at": "2026-11-01T10:00:09+00:00"},
        "tags": ["base", "two words"],
        "metadata": {"run": 7},
        "samples": samples,
    }


def _figures(name: str, scorer: str, **values: float) -> dict[str, Any]:
    metrics = {metric: {"name": metric, "value": value} for metric, value in values.items()}
    return {"name": name, "scorer": scorer, "reducer": "mean", "metrics": metrics}


def _sample(row: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    number, answer = row["id"], _ANSWERS[row["id"]]
    asked = [row["input"]] if isinstance(row["input"], str) else [each["content"] for each in row["input"]]
    roles = ["user"] if len(asked) == 1 else ["system", "user"]
    messages = [{"id": "random", "content": text, "role": role} for text, role in zip(asked, roles, strict=True)]
    sample = {
        **copy.deepcopy(dict(row)),
        "epoch": epoch,
        "messages": messages,
        "output": {"model": "mockllm/model", "choices": [], "completion": ""},
        "scores": {},
        "events": [{"event": "sample_init"}],
        "model_usage": {},
        "started_at": "2026-11-01T10:00:01+00:00",
        "completed_at": "2026-11-01T10:00:04+00:00",
        "total_time": 3.0,
        "working_time": 2.5,
        "uuid": f"u{number}-{epoch}",
        "attachments": {},
    }
    if (number, epoch) == (3, 2):
        return {**sample, "error": {"message": "ValueError('no colour é')", "traceback": "Traceback: line 7"}}
    messages.append({"id": "random", "content": answer, "role": "assistant"})
    grade = _GRADES[number] if epoch == 1 else "I"
    return {
        **sample,
        "output": {
            "model": "mockllm/model",
            "choices": [{"message": messages[-1], "stop_reason": "stop"}],
            "completion": answer,
        },
        "events": [
            {"event": "sample_init"},
            {"event": "model", "model": "mockllm/model", "working_time": 0.5},
        ],
        "scores": {
            "grade": {"value": grade, "explanation": "why", "answer": "a", "history": []},
            "judge": {"value": {"tone": 0.5, "length": len(answer)}, "metadata": {"by": "rule"}, "history": []},
            "sometimes": {"value": float("nan"), "reason": "unclear", "history": []}
            if number == 2
            else {"value": 2, "history": []},
        },
        "model_usage": {
            "mockllm/model": {
                "input_tokens": 10,
                "output_tokens": 3,
                "total_tokens": 18,
                "input_tokens_cache_read": 5,
                "reasoning_tokens": 1,
            }
        },
    }


def write_eval(path: Path, log: Mapping[str, Any], *, compression: int = ZSTANDARD, head: str = "header.json") -> Path:
    """Write a log as a `.eval` file. `head`: the name of the member with all but the samples."""
    header = {name: value for name, value in log.items() if name != "samples"}
    with zipfile.ZipFile(path, "w", compression) as archive:
        # inspect-ai writes samples as they end, in any order.
        for sample in reversed(log["samples"]):
            name = f"samples/{sample['id']}_epoch_{sample['epoch']}.json"
            archive.writestr(name, json.dumps(sample, ensure_ascii=False))
        archive.writestr(head, json.dumps(header))
    return path


def write_json(path: Path, log: Mapping[str, Any]) -> Path:
    """Write a log as a `.json` file."""
    path.write_text(json.dumps(log), encoding="utf-8")
    return path


def dotevals_lines(*, nested: bool = False) -> list[dict[str, Any]]:
    """The lines of an evaluation with four rows, of which one has failed.

    nested: as releases before 0.27 write them.
    """
    head = {
        "evaluation_name": "eval_stored[None-None]",
        "metadata": {},
        "started_at": 1796005186.75,
        "status": "completed",
        "completed_at": 1796005188.25,
    }
    lines = [head]
    for item, (text, expected) in enumerate([("a", "a"), ("b", "x"), ("c", "c"), ("d", "d")]):
        failed = text == "c"
        score = {
            "name": "exact_match",
            "value": text == expected,
            "metrics": ["accuracy"],
            "metadata": {"result": text, "expected": expected},
        }
        result = {
            "prompt": None if failed else f"say {text}",
            "scores": [] if failed else [score],
            "model_response": None if failed else text,
        }
        error = "ValueError: no answer: é" if failed else None
        line = {
            "item_id": item,
            **({"result": {**result, "error": None}} if nested else result),
            "dataset_row": {"text": text, "expected": expected},
            "error": error,
            "timestamp": 1796005187.0 + item,
        }
        lines.append(line if nested else {**line, "dataset_name": None, "dataset_class": None})
    return lines


def write_dotevals(directory: Path, experiment: str, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write an evaluation as dotevals does below a directory. Returns the file."""
    path = directory / experiment / "eval_stored[None-None].jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def first_difference(ours: Any, theirs: Any, place: str = "log") -> str | None:
    """Where a value that we write has another type than theirs, or a field that theirs lacks; None for nowhere."""
    number = (int, float)
    if type(ours) is not type(theirs) and not (isinstance(ours, number) and isinstance(theirs, number)):
        return f"{place} is {type(ours).__name__}, not {type(theirs).__name__}"
    if isinstance(ours, dict):
        for name, value in ours.items():
            if name not in theirs:
                return f"{place} has no {name!r}"
            if (found := first_difference(value, theirs[name], f"{place}.{name}")) is not None:
                return found
    if isinstance(ours, list):
        if len(ours) > len(theirs):
            return f"{place} has {len(theirs)} values, not {len(ours)}"
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            if (found := first_difference(mine, other, f"{place}[{index}]")) is not None:
                return found
    return None
