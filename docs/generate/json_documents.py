"""The page of what ``--json`` writes. ``tests/unit/test_json_documents.py`` compares it with what the commands write.

A key that ends with "?" is there only sometimes; its meaning says when. Types: text, number, flag, time, any; the name of
a part of `PARTS`; `[T]` for a list and `{T}` for an object whose keys are names. "or null" may follow.
"""

from __future__ import annotations

import re

from docs.generate.markdown import code, page_of, table

Shape = dict[str, tuple[str, str]]

_EXPERIMENT: Shape = {
    "name": ("text", "its name"),
    "created_at": ("time", "when it was begun"),
}
_LABELS: Shape = {
    "tags": ("[text]", "its tags"),
    "note": ("text or null", "its note"),
    "baseline": ("flag", "whether it is the baseline of the store"),
}
_OF: Shape = {
    "experiment": ("experiment", "the experiment"),
    "storage": ("text", "the result store"),
}
_EVALUATION: Shape = {
    "name": ("text", "the function, with its parameters in brackets"),
    "path": ("text", "the file, relative to pytest's root"),
    "status": ("text", "running, completed, failed, skipped or cancelled"),
    "reason": ("text or null", "why it ended otherwise than with all rows"),
    "created_at": ("time", "when it was begun"),
    "finished_at": ("time or null", "when it ended"),
    "rows": ("rows", "how far it is"),
    "dataset_notes": (
        "[text]",
        "what a reader has to know of the dataset, such as a column that is missing from every row",
    ),
    "repaid_rows": ("number", "rows that asked something else when they ran again after their process died"),
    "code": ("{text}", "a hash of each file"),
    "dataset": ("text or null", "a hash of all rows"),
    "dataset_source": (
        "text or null",
        "what the rows are for ever, as `hf://OWNER/NAME@COMMIT`; null for other datasets",
    ),
}
_TIME: Shape = {
    "seconds": ("number", "the time worked: the sum of the spans in which it was running"),
    "elapsed_seconds": ("number", "from the first beginning to the last end, or to now"),
}
_TOKENS: Shape = {
    "prompt_tokens": ("number", "tokens of prompts"),
    "completion_tokens": ("number", "tokens of replies"),
    "cached_tokens": ("number", "those of prompts that the provider had in its own cache"),
    "reasoning_tokens": ("number", "those of replies that were spent on reasoning"),
}
_NAMED: Shape = {
    "experiment": ("text", "its experiment"),
    "evaluation": ("text", "its `file::name`"),
}

_USAGE: Shape = {
    "model": ("text", "the model"),
    "requests": ("number", "calls of a client's methods"),
    "attempts": ("number", "tries that were sent to the server"),
    "cache_hits": ("number", "look-ups in the cache that found a reply"),
    "cache_misses": ("number", "those that found none"),
    **_TOKENS,
    "unfinished": ("number", "tries of which nobody saw the end: their tokens are not known"),
    "cost": ("number or null", "US dollars, null if the model has no price"),
    "seconds": ("number", "time spent on tries"),
    "hit_rate": ("number or null", "the share of look-ups that found a reply"),
    "waited": ("number", "seconds spent waiting for rate limits"),
    "latency": ("{number or null}", "seconds that replies took: p50, p95, p99"),
}

PARTS: dict[str, Shape] = {
    "experiment": _EXPERIMENT,
    "rows": {
        "total": ("number or null", "all rows; null while the dataset is being read"),
        "done": ("number", "rows with a result"),
        "failed": ("number", "rows that failed"),
        "skipped": ("number", "rows that were skipped"),
        "pending": ("number or null", "rows without a result; null while the dataset is being read"),
    },
    "evaluation": _EVALUATION,
    "command": {
        "started_at": ("time", "when"),
        "command": ("[text]", "its arguments"),
        "commit": ("text or null", "the commit of the evaluation files"),
        "branch": ("text or null", "their branch"),
        "dirty": ("flag or null", "whether files had changes that were not committed"),
        "host": ("text or null", "the machine"),
        "user": ("text or null", "who started it"),
        "versions": ("{text}", "of python and of packages"),
    },
    "score": {
        "name": ("text", "its name"),
        "failed": ("number", "rows that counted as False"),
        "metrics": ("[metric]", "its metrics"),
    },
    "metric": {
        "name": ("text", "its name"),
        "value": ("number or null", "its value"),
        "n": ("number", "values that it was computed from"),
        "failed": ("number", "failed rows among them, as False"),
        "left_out": ("number", "done and failed rows that are not among them"),
        "interval": ("[number] or null", "the 95% interval, low and high"),
        "interval_method": ("text or null", "how the interval was computed"),
        "without_failed": ("number or null", "the value without failed rows"),
        "failed_as_false": ("number or null", "the value with failed rows as False"),
        "note": ("text or null", "what a reader has to know"),
    },
    "record": {
        "row": ("number", "the position of the row in the dataset"),
        "sample": ("number", "the number of the sample"),
        "key": ("text", "the key of the row"),
        "values": ("{any}", "its columns"),
        "status": ("text", "done, failed or skipped"),
        "scores": ("[score of a record]", "its scores"),
        "prompt": ("any", "as the author gave it"),
        "model_response": ("any", "as the author gave it"),
        "metadata": ("{any}", "as the author gave it"),
        "error": ("error of a record or null", "why it failed or was skipped"),
        "started_at": ("time", "when it began"),
        "seconds": ("number", "how long it took"),
        "usage": ("[usage]", "what it used of each model"),
        "worker": ("text or null", "the worker process"),
        "label": ("text or null", "what people say of it: right, wrong or disputed"),
        "labels": ("[label]", "what each of them says"),
    },
    "score of a record": {
        "name": ("text", "its name"),
        "value": ("any", "its value"),
        "metadata": ("{any}", "what the evaluator kept"),
    },
    "error of a record": {
        "type": ("text", "the type of the exception"),
        "message": ("text", "its message"),
        "class": ("text", "evaluation, infrastructure, timeout, crash or quota"),
        "traceback": ("text", "its traceback"),
    },
    "label": {
        "person": ("text", "who says it"),
        "judgement": ("text", "right or wrong"),
        "note": ("text or null", "the note"),
        "labelled_at": ("time", "when"),
        "of_earlier": ("flag", "whether it is of a result that the row had before it ran again"),
    },
    "usage": {
        "judge": ("flag", "whether a judge asked"),
        "batch": ("flag", "whether batches answered"),
        **_USAGE,
    },
    "usage of all models": _USAGE,
    "attempt": {
        "row": ("number", "the position of the row"),
        "sample": ("number", "the number of the sample"),
        "status": ("text", "what became of it"),
        "started_at": ("time", "when it began"),
        "seconds": ("number", "how long it took"),
        "worker": ("text or null", "the worker process"),
        "error": ("error of an attempt or null", "why it failed"),
        "replaced": ("flag", "whether a retry has replaced it"),
        "to_be_retried": ("flag", "whether it is to run again"),
    },
    "error of an attempt": {
        "type": ("text", "the type of the exception"),
        "message": ("text", "its message"),
        "class": ("text", "evaluation, infrastructure, timeout, crash or quota"),
    },
    "error": {
        "type": ("text", "the type of the exception"),
        "message": ("text", "its message"),
        "class": ("text", "evaluation, infrastructure, timeout, crash or quota"),
        "count": ("number", "how many rows failed so"),
        "example_row": ("number", "one of them"),
    },
    "call": {
        "sample": ("number", "the number of the sample"),
        "execution": ("text", "those of one run of the row have the same"),
        "position": ("number", "its place in that run"),
        "source": ("text", "live, cache, batch or replay"),
        "judge": ("flag", "whether a judge asked"),
        "model": ("text", "the model"),
        "status": ("number or null", "the HTTP status of the reply"),
        "started_at": ("time", "when it began"),
        "seconds": ("number", "how long it took"),
        **_TOKENS,
        "cost": ("number or null", "US dollars"),
        "endpoint": ("text or null", "the path of the URL"),
        "request": ("any", "JSON, or a text"),
        "reply": ("any", "JSON, or a text, such as that of a stream"),
        "error": ("text or null", "why there is no reply"),
    },
    "group": {
        "group": ("any", "the value of the field"),
        "results": ("number", "results in it"),
        "failed": ("number", "failed ones"),
        "skipped": ("number", "skipped ones"),
        "scores": ("{mean}", "by the name of the score"),
    },
    "mean": {
        "mean": ("number or null", "the mean"),
        "interval": ("[number] or null", "its 95% interval"),
        "interval_method": ("text or null", "how it was computed"),
        "n": ("number", "rows"),
    },
    "worker process": {
        "service": ("text", "the name of its service"),
        "hostname": ("text", "its machine"),
        "pid": ("number", "its process id"),
        "queues": ("[text]", "the queues that it serves"),
        "device": ("text or null", "its CUDA_VISIBLE_DEVICES"),
        "concurrency": ("number", "rows in flight at most"),
        "state": ("text", "loading, ready, draining, submitting or left"),
        "started_at": ("time", "when it began"),
        "left_at": ("time or null", "when it ended"),
        "reason": ("text or null", "why"),
        "heard_of_seconds_ago": ("number", "the age of its last heartbeat"),
        "broker_silent_seconds": ("number or null", "for how long its broker has not answered it; null while it does"),
        "versions": ("{text}", "of python and of packages"),
        "rows_held": ("number", "rows that it has taken from the queue"),
    },
    "batches": {
        "open": ("number", "batches at the provider"),
        "requests": ("number", "calls in them"),
        "answered": ("number", "those that are done"),
        "oldest_seconds": ("number or null", "the age of the oldest"),
        "calls_for_next": ("number", "calls that wait to be sent"),
        "errors": ("[text]", "what went wrong last"),
    },
    "fixture": {
        "fixture": ("text", "its name"),
        "loads": ("number", "how often it was set up"),
        "load_seconds": ("number", "how long that took in all"),
        "torn_down": ("number", "how often it was torn down"),
        "stats": ("any", "what its `get_stats` said, summed over processes"),
        "errors": ("[text]", "why set-ups failed"),
    },
    "model": {
        "model": ("text", "the model"),
        "judge": ("flag", "whether a judge asked"),
        "batch": ("flag", "whether batches answered"),
        "kept": ("usage", "of the results that are kept"),
        "spent": ("usage", "of everything, repeated work too"),
        "unpriced_tokens": ("number", "tokens of `spent` that have no price"),
    },
    "prices": {
        "package": ("text", "the package of prices"),
        "versions": ("[text]", "those that the experiment ran with"),
        "checked": ("text or null", "the newest day on which a price was compared with the provider's"),
    },
    "pair": {
        "verdict": ("text", "the verdict on the pair"),
        "baseline": ("compared evaluation", "the one"),
        "other": ("compared evaluation", "the other"),
        "rows_matched": ("number", "rows that both have"),
        "gaps": ("[gap]", "rows without a result"),
        "unfinished": ("[text]", "evaluations that have not ended"),
        "differences": ("[text]", "[other differences](../reading-results.md#other-differences)"),
        "only_other_scores": ("[text]", "scores that the baseline does not have"),
        "metrics": ("[compared metric]", "one for each metric of each score"),
        "spending": ("{spending}", "of `baseline` and `other`"),
    },
    "compared evaluation": _NAMED,
    "gap": {
        "side": ("text", "the experiment"),
        "what": ("text", "what is missing"),
        "rows": ("number", "how many"),
        "examples": ("[number]", "the first indexes"),
    },
    "compared metric": {
        "score": ("text", "the score"),
        "metric": ("text", "the metric"),
        "verdict": ("text", "the verdict on it"),
        "tolerated": ("flag", "WORSE, but the whole interval is within `max_drop`"),
        "reasons": ("[text]", "why nothing can be said"),
        "better": ("text", "higher or lower"),
        "n": ("number", "rows with a value on both sides"),
        "units": ("number", "how many independent units they are"),
        "baseline": ("number or null", "the metric of the baseline"),
        "value": ("number or null", "the metric of the other"),
        "difference": ("number or null", "value - baseline"),
        "interval": ("[number] or null", "the 95% interval of the difference"),
        "interval_method": ("text or null", "how it was computed"),
        "p_value": ("number or null", "alone"),
        "adjusted_p_value": ("number or null", "adjusted for all that is compared"),
        "test": ("text or null", "from which test"),
        "improved": (
            "number or null",
            "rows that became better; null for metrics without a value for a row, such as `f1`",
        ),
        "worsened": ("number or null", "rows that became worse"),
        "missing": ("number", "values that are missing or failed"),
        "worst_difference": ("number or null", "the difference if those speak against the other"),
        "detectable_difference": ("number or null", "what would have been seen with 80% power"),
        "flips": ("[flip]", "with `--flips`: rows that changed"),
    },
    "flip": {
        "baseline_row": ("number", "the index in the baseline"),
        "row": ("number", "the index in the other"),
        "baseline": ("any", "the value there"),
        "value": ("any", "the value here"),
        "baseline_record": ("record or null", "the record there"),
        "record": ("record or null", "the record here"),
    },
    "spending": {
        "models": ("[text]", "the models"),
        "usage": ("usage of all models", "the sum over them"),
        "prices": ("prices or null", "where the prices come from; null if nothing has a cost"),
        "row_seconds": ("number or null", "the mean time of a row"),
    },
    "agreement": {
        "statistic": ("text", "which one"),
        "value": ("number or null", "its value"),
        "interval": ("[number] or null", "its 95% interval"),
    },
}

_SHOWN: Shape = {
    **_EVALUATION,
    **_TIME,
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
        **_EVALUATION,
        "records?": ("[any]", "records, or only the fields of `--columns`"),
        "group_by?": ("text", "with `--group-by`: the field"),
        "groups?": ("[group]", "with `--group-by`"),
    },
    "followed evaluation": {
        **_EVALUATION,
        **_TIME,
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
    "shown experiment": {**_EXPERIMENT, **_LABELS, "commands": ("[command]", "what began, continued or recomputed it")},
    "listed experiment": {
        **_EXPERIMENT,
        **_LABELS,
        "active_at": ("time or null", "when something was stored last"),
        "begun_by": ("command or null", "the command that began it"),
        "status": ("text or null", "the status of its evaluations together"),
        "abandoned": ("flag", "whether it is running by its status, and nobody runs it"),
        "evaluations": ("number", "how many it has"),
        "rows": ("rows", "of all of them"),
    },
    "baseline": {**_EXPERIMENT, "since": ("time", "since when")},
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
    "recomputed evaluation": {**_EVALUATION, "metrics": ("[recomputed metric]", "before and after")},
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
        **_OF,
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
        **_OF,
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
        **_OF,
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
        **_OF,
        "fixtures?": ("[fixture]", "also with `--by fixture`"),
        "models?": ("[model]", "also with `--by model`"),
        "prices?": ("prices or null", "without `--by`: where prices come from; null if nothing has a cost"),
        "workers?": ("[used by a worker]", "with `--by worker`"),
        "evaluations?": ("[used by an evaluation]", "with `--by evaluation`"),
    },
    "report NAME -o FILE": {
        **_OF,
        "file": ("text", "the file"),
        "format": ("text", "html or markdown"),
        "bytes": ("number", "its size"),
        "missed": ("[text]", "the thresholds that are missed, in sentences"),
    },
    "query SQL": {"columns": ("[result column]", "the columns"), "rows": ("[any]", "an object for each row")},
    "export NAME FILE": {
        **_OF,
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
        **_OF,
        "stored": ("flag", "whether the new values are stored"),
        "evaluations": ("[recomputed evaluation]", "its evaluations"),
    },
    "tag NAME": {**_EXPERIMENT, **_LABELS},
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
