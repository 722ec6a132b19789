"""The page of what ``--json`` writes. ``tests/unit/cli/test_json_documents.py`` compares it with what the commands write.

`docs.generate.json_parts` says how keys and types are written.
"""

from __future__ import annotations

import re

from docs.generate.json_parts import EVALUATION, EXPERIMENT, LABELS, OF, PARTS, TIME, Shape
from docs.generate.markdown import code, page_of, table

_SHOWN: Shape = {
    **EVALUATION,
    **TIME,
    "errors_as": ("text", "how failed rows count: false or excluded"),
    "error_classes": ("{number}", "failed rows by class of error"),
    "warnings": ("[text]", "what nobody may overlook"),
    "scores": ("[score]", "the metrics"),
    "errors?": ("[error]", "with `--errors`: the errors, the most frequent first"),
    "last_errors?": ("[attempt]", "with `--errors`: the newest"),
    "records?": ("[record]", "with `--full` or `--row`"),
    "attempts?": ("[attempt]", "with `--row`: those that were replaced"),
    "calls?": ("[call]", "with `--row`: the calls to models"),
}
PARTS |= {
    "shown evaluation": _SHOWN,
    "evaluation with records": {
        **EVALUATION,
        "records?": ("[any]", "records, or only the fields of `--columns`"),
        "group_by?": ("text", "with `--group-by`: the field"),
        "groups?": ("[group]", "with `--group-by`"),
    },
    "followed evaluation": {
        **EVALUATION,
        **TIME,
        "queue": ("text or null", "the queue of its row tasks"),
        "rows_held": ("number", "rows that live worker processes hold"),
        "rows_of_dead_workers": ("number", "rows that dead ones held"),
        "rows_published": ("number", "rows that are published and held by nobody"),
        "rows_unpublished": ("number", "rows that are not published yet"),
        "rows_waiting": ("number", "rows that wait for batches"),
        "batches": ("batches", "its batches"),
        "plan": ("[text]", "what happens next"),
        "abandoned": ("flag", "whether it is running by its status, and nobody runs it"),
        "last_errors": ("[attempt]", "the newest errors"),
    },
    "shown experiment": {**EXPERIMENT, **LABELS, "commands": ("[command]", "what began, continued or recomputed it")},
    "listed experiment": {
        **EXPERIMENT,
        **LABELS,
        "active_at": ("time or null", "when something was stored last"),
        "begun_by": ("command or null", "the command that began it"),
        "status": ("text or null", "the status of its evaluations together"),
        "abandoned": ("flag", "whether it is running by its status, and nobody runs it"),
        "evaluations": ("number", "how many it has"),
        "rows": ("rows", "of all of them"),
    },
    "baseline": {**EXPERIMENT, "since": ("time", "since when")},
    "point": {
        "experiment": ("text", "the experiment"),
        "started_at": ("time", "when it was begun"),
        "status": ("text", "of the evaluation"),
        "commit": ("text or null", "the commit"),
        "branch": ("text or null", "the branch"),
        "tags": ("[text]", "its tags"),
        "value": ("number or null", "the metric"),
        "interval": ("[number] or null", "its 95% interval"),
        "n": ("number", "values"),
        "compared_with": ("text or null", "the newest experiment before it on the same rows"),
        "difference": ("number or null", "the difference from that"),
        "difference_interval": ("[number] or null", "its 95% interval"),
        "changed": ("flag", "whether it is more than chance explains"),
        "notes": ("[text]", "what a reader has to know"),
        "baseline": ("flag", "whether it is the baseline"),
        "baseline_difference": ("number or null", "the difference from the baseline"),
        "baseline_interval": ("[number] or null", "its 95% interval"),
    },
    "series": {
        "evaluation": ("text", "its `file::name`"),
        "score": ("text", "the score"),
        "metric": ("text", "the metric"),
        "points": ("[point]", "from old to new"),
    },
    "recomputed evaluation": {**EVALUATION, "metrics": ("[recomputed metric]", "before and after")},
    "recomputed metric": {
        "score": ("text", "the score"),
        "metric": ("text", "the metric"),
        "before": ("number or null", "the stored value"),
        "after": ("number or null", "the value now"),
        "before_interval": ("[number] or null", "the stored interval"),
        "after_interval": ("[number] or null", "the interval now"),
        "change": ("text", "none, changed, new or gone"),
    },
    "imported file": {
        "file": ("text", "its path"),
        "status": ("text", "imported, would be imported, exists, no log or refused"),
        "experiment": ("text or null", "the experiment"),
        "evaluation": ("text or null", "the evaluation"),
        "tool": ("text or null", "what wrote the file"),
        "model": ("text or null", "the model"),
        "ended": ("text or null", "the status of the evaluation"),
        "rows": ("number or null", "rows"),
        "results": ("number or null", "results"),
        "failed": ("number or null", "failed ones"),
        "missing": ("number or null", "results that the log lacks"),
        "remarks": ("{number}", "what was left out or not understood, with how often"),
        "notes": ("[text]", "what a reader has to know"),
        "message": ("text or null", "why it was refused"),
        "remedy": ("text or null", "what to do next"),
    },
    "figure": {
        "experiment": ("text", "the experiment"),
        "parameters": ("text or null", "of the evaluation"),
        "evaluation": ("text", "its `file::name` without parameters"),
        "score": ("text", "the score"),
        "metric": ("text", "the metric"),
        "value": ("number or null", "the value"),
        "interval": ("[number] or null", "its 95% interval"),
        "n": ("number", "values"),
        "failed": ("number", "failed rows among them"),
    },
    "used by a worker": {
        "name": ("text or null", "the worker process"),
        "rows": ("number", "rows that it ran"),
        "fixtures": ("[fixture]", "its fixtures"),
        "models": ("[model]", "its models"),
    },
    "used by an evaluation": {"name": ("text", "the evaluation"), "models": ("[model]", "its models")},
    "finding": {
        "name": ("text", "what was examined"),
        "well": ("flag", "whether it is as it should be"),
        "text": ("text", "what was found"),
        "remedy": ("text or null", "what to do next"),
    },
    "page": {
        "page": ("text", "its name"),
        "title": ("text", "its title"),
        "group": ("text", "its group in the index"),
        "path": ("text", "its file"),
        "about": ("text", "what it says"),
    },
    "result column": {"name": ("text", "its name"), "type": ("text", "DuckDB's name of its type")},
    "dataset": {
        "name": ("text", "its name"),
        "splits": ("[text]", "its splits"),
        "columns": ("[text]", "its columns"),
        "num_rows": ("number or null", "its rows"),
        "needs_extra": ("text or null", "the extra of doteval that its rows need"),
    },
    "cell": {
        "label": ("any", "what people say"),
        "judged": ("any", "what the judge said"),
        "count": ("number", "how often"),
    },
    "copied table": {
        "name": ("text", "its name"),
        "lines": ("number", "its lines"),
        "checksum": ("text", "of its content"),
    },
    "projection": {
        "sampled": ("number", "of the rows that have run"),
        "rest": ("number or null", "of the others"),
        "rest_interval": ("[number] or null", "its 95% interval"),
        "interval_method": ("text or null", "how it was computed"),
    },
}

_BASELINE: Shape = {"storage": ("text", "the result store"), "baseline": ("baseline or null", "the baseline")}
COMMANDS: dict[str, Shape] = {
    "list": {"storage": ("text", "the result store"), "experiments": ("[listed experiment]", "the newest first")},
    "status NAME": {
        **OF,
        "evaluations": ("[followed evaluation]", "its evaluations"),
        "workers": ("[worker process]", "those that live"),
        "dead_workers": ("[worker process]", "those that died with rows"),
        "failed_starts": ("[worker process]", "those that cannot start"),
        "messages_queued": ("number or null", "row tasks that wait in queues"),
        "messages_by_queue": ("{number} or null", "their numbers by queue"),
        "broker_error": ("text or null", "why they are unknown"),
    },
    "doctor": {"well": ("flag", "whether all is well"), "findings": ("[finding]", "what was examined")},
    "show NAME": {
        "experiment": ("shown experiment", "the experiment"),
        "storage": ("text", "the result store"),
        "evaluations": ("[shown evaluation]", "its evaluations"),
    },
    "show NAME with a filter, an order, columns or groups": {
        **OF,
        "evaluations": ("[evaluation with records]", "its evaluations"),
    },
    "compare A B": {
        "storage": ("text", "the result store"),
        "verdict": ("text", "the verdict on everything"),
        "max_drop": ("number or null", "the drop that was allowed"),
        "evaluations": ("[pair]", "one for each pair of evaluations"),
        "missing": ("[compared evaluation]", "evaluations that an experiment lacks"),
        "only_others": ("[compared evaluation]", "evaluations that the baseline lacks"),
    },
    "compare --matrix": {
        "storage": ("text", "the result store"),
        "figures": ("[figure]", "one for each cell"),
        "notes": ("[text]", "what a reader has to know"),
    },
    "baseline set NAME": _BASELINE,
    "baseline show": _BASELINE,
    "baseline clear": _BASELINE,
    "judge-check NAME": {
        **OF,
        "evaluation": ("text", "its `file::name`"),
        "score": ("text", "the score of the judge"),
        "rows": ("number", "rows with a label and a score"),
        "labels": ("number", "labels"),
        "agreed": ("number", "labels that are what the judge said"),
        "agreed_interval": ("[number] or null", "the 95% interval of their share"),
        "agreement": ("agreement", "of judge and people"),
        "people": ("agreement or null", "of people alone; null if no row has two labels"),
        "matrix": ("[cell] or null", "how often each was said; null for more than 20 values"),
        "labels_without_row": ("number", "labels of rows that are not there"),
        "labels_without_score": ("number", "labels of rows without a score"),
    },
    "history SCORE": {"storage": ("text", "the result store"), "series": ("[series]", "one for each metric")},
    "usage NAME": {
        **OF,
        "fixtures?": ("[fixture]", "also with `--by fixture`"),
        "models?": ("[model]", "also with `--by model`"),
        "prices?": ("prices or null", "without `--by`: where prices come from; null if nothing has a cost"),
        "workers?": ("[used by a worker]", "with `--by worker`"),
        "evaluations?": ("[used by an evaluation]", "with `--by evaluation`"),
    },
    "report NAME -o FILE": {
        **OF,
        "file": ("text", "the file"),
        "format": ("text", "html or markdown"),
        "bytes": ("number", "its size"),
        "missed": ("[text]", "the thresholds that are missed, in sentences"),
    },
    "query SQL": {"columns": ("[result column]", "the columns"), "rows": ("[any]", "an object for each row")},
    "export NAME FILE": {
        **OF,
        "file": ("text", "the file"),
        "format": ("text", "its format"),
        "results?": ("number", "results in it"),
        "calls?": ("number", "with `--calls`: calls in it"),
        "pending": ("number or null", "rows without a result; null with `--where` and `--calls`"),
    },
    "import FILE": {
        "storage": ("text or null", "the result store; null if `--dry-run` finds none"),
        "files": ("[imported file]", "what became of each"),
    },
    "recompute NAME": {
        **OF,
        "stored": ("flag", "whether the new values are stored"),
        "evaluations": ("[recomputed evaluation]", "its evaluations"),
    },
    "tag NAME": {**EXPERIMENT, **LABELS},
    "prune": {
        "storage": ("text", "the result store"),
        "found": ("[text]", "the experiments that match"),
        "deleted": ("[text]", "those that were deleted"),
        "kept_running": ("number", "those that somebody runs"),
        "kept_tagged": ("number", "those with a tag"),
        "kept_baseline": ("text or null", "the baseline, if it matches"),
    },
    "prune --journals": {
        "storage": ("text", "the result store"),
        "found": ("[text]", "the experiments that match"),
        "calls": ("number", "their calls"),
        "dropped": ("number", "calls that were dropped"),
        "kept_running": ("number", "experiments that somebody runs"),
    },
    "datasets": {"datasets": ("[dataset]", "the registered datasets")},
    "db size": {
        "storage": ("text", "the result store"),
        "total": ("number", "bytes"),
        "parts": ("{number}", "bytes by part"),
        "calls": ("number", "calls in the journal"),
        "call_bytes": ("number", "bytes of their packed requests and replies"),
    },
    "db copy FROM TO": {
        "from": ("text", "the store that was read"),
        "to": ("text", "the store that was written"),
        "lines": ("number", "lines of all tables"),
        "seconds": ("number", "how long it took"),
        "tables": ("[copied table]", "each table"),
        "running": (
            "[text]",
            "experiments that were running meanwhile: the copy has what they had stored at its beginning",
        ),
    },
    "docs": {"pages": ("[page]", "every page")},
    "docs PAGE": {
        "page": ("text", "its name"),
        "title": ("text", "its title"),
        "group": ("text", "its group in the index"),
        "path": ("text", "its file"),
        "section": ("text or null", "the anchor of the section"),
        "markdown": ("text", "its text"),
    },
    "submit --estimate-only": {
        "experiment": ("experiment", "the experiment"),
        "rows": ("number", "rows that have run"),
        "rows_left": ("number", "the others"),
        "failed": ("number", "failed rows of those that have run"),
        "rows_at_once": ("number", "rows in flight"),
        "unpriced_models": ("[text]", "models without a price"),
        "exceeds_budget": ("flag", "whether the budget is likely to be used up before the last row has run"),
        "amounts": ("{projection}", "requests, tokens, cost and seconds"),
    },
}


def page() -> str:
    return page_of(
        "What `--json` writes",
        "One document on standard output, and nothing else. Keys may be added in later versions; none is renamed or removed. "
        "Times are ISO 8601 in UTC, durations seconds, costs US dollars. A value that does not exist is null. Values that JSON "
        'cannot express are written as the store keeps them: `{"$type": "tuple", "value": [1, 2]}`.',
        "`[T]` is a list of T, `{T}` an object with names as keys. A key with `?` is there only in the case that its meaning "
        "names.",
        "## Commands",
        *(f"### `doteval {name}`\n\n{_keys(shape)}" for name, shape in COMMANDS.items()),
        "## Parts of documents",
        *(f"### {_title(name)}\n\n{_keys(shape)}" for name, shape in PARTS.items()),
    )


def _title(name: str) -> str:
    return f"{name[0].upper()}{name[1:]}"


def _keys(shape: Shape) -> str:
    return table(
        ["key", "type", "meaning"], [(code(key), _type(kind), meaning) for key, (kind, meaning) in shape.items()]
    )


def _type(kind: str) -> str:
    """A type, in which the name of a part leads to it."""
    name = re.sub(r"[][{}]| or null", "", kind)
    if name not in PARTS:
        return kind.replace("[", r"\[")
    return kind.replace("[", r"\[").replace(name, f"[{name}](#{name.replace(' ', '-')})")
