"""The JSON documents that `--json` writes. Scripts depend on them: keys may be added, never renamed or removed.

Times are ISO 8601 in UTC, durations are in seconds, costs in US dollars. A number that does not exist is null.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from doteval.analysis.groups import GroupSummary
from doteval.analysis.record_documents import finite, moment, stored, usage
from doteval.analysis.summary import MetricValue, Summary
from doteval.core.batches import BatchProgress
from doteval.core.experiments import Counts, Evaluation, Experiment, WorkTime
from doteval.core.provenance import Provenance
from doteval.core.wording import plain_json
from doteval.store import (
    Attempt,
    ErrorCount,
    ExperimentLabels,
    ExperimentOverview,
    LoadUsage,
    ModelUsage,
    UsageGroup,
    UsageReport,
    WorkerState,
    WorkerUsage,
)

if TYPE_CHECKING:
    from doteval.submission.doctor import Finding
    from doteval.submission.status import EvaluationProgress

Document = dict[str, Any]


class Streamed(list[Any]):
    """A list for `write` that makes its items while they are written, so that memory stays bounded."""

    def __init__(self, items: Iterable[Any]) -> None:
        # The JSON encoder first asks whether the list is empty, so one item is made ahead.
        self._items = iter(items)
        super().__init__(itertools.islice(self._items, 1))

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        yield from self._items


def write(document: Document) -> None:
    """Write a document to stdout as indented JSON."""
    # Escapes are correct in any encoding; UTF-8 is left readable for people.
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    encoder = json.JSONEncoder(indent=2, ensure_ascii=not readable, allow_nan=False)
    sys.stdout.writelines(map(plain_json, encoder.iterencode(document)))
    sys.stdout.write("\n")


def overview(line: ExperimentOverview, *, abandoned: bool) -> Document:
    return {
        **experiment(line.experiment),
        **labels(line.labels),
        "active_at": moment(line.active_at),
        "begun_by": None if line.begun_by is None else provenance(line.begun_by),
        "status": line.status,
        "abandoned": abandoned,
        "evaluations": line.evaluations,
        "rows": rows(line.counts),
    }


def experiment(found: Experiment) -> Document:
    return {"name": found.name, "created_at": moment(found.created_at)}


def labels(found: ExperimentLabels) -> Document:
    return {"tags": list(found.tags), "note": found.note, "baseline": found.is_baseline}


def provenance(found: Provenance) -> Document:
    git = found.git
    return {
        "started_at": moment(found.started_at),
        "command": list(found.command),
        "commit": git and git.commit,
        "branch": git and git.branch,
        "dirty": git and git.dirty,
        "host": found.host,
        "user": found.user,
        "versions": dict(found.versions),
    }


def evaluation(found: Evaluation) -> Document:
    return {
        "name": found.name,
        "path": found.spec.path,
        "status": found.status,
        "reason": found.reason,
        "created_at": moment(found.created_at),
        "finished_at": moment(found.finished_at),
        "rows": rows(found.counts),
        "dataset_notes": list(found.dataset_notes),
        "repaid_rows": found.repaid_rows,
        "code": dict(found.spec.fingerprint),
        "dataset": found.rows_hash,
        "dataset_source": found.dataset_source,
    }


def work_time(found: WorkTime) -> Document:
    return {"seconds": found.worked, "elapsed_seconds": found.elapsed}


def finding(found: Finding) -> Document:
    return {
        "name": found.name,
        "well": found.well,
        "text": found.text,
        "remedy": None if found.well else found.remedy,
    }


def evaluation_progress(found: EvaluationProgress) -> Document:
    return {
        **evaluation(found.evaluation),
        "queue": found.evaluation.config.queue,
        "rows_held": found.held,
        "rows_of_dead_workers": found.orphaned,
        "rows_published": found.published,
        "rows_unpublished": found.unpublished,
        "rows_waiting": found.batches.waiting,
        "batches": batch_progress(found.batches),
        "plan": list(found.plan),
        "abandoned": found.abandoned,
    }


def batch_progress(found: BatchProgress) -> Document:
    return {
        "open": found.batches,
        "requests": found.requests,
        "answered": found.answered,
        "oldest_seconds": found.oldest,
        "calls_for_next": found.unsent,
        "errors": list(found.errors),
    }


def rows(counts: Counts) -> Document:
    return {
        "total": counts.total,
        "done": counts.done,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "pending": None if counts.total is None else counts.pending,
    }


def scores(summary: Summary, as_false: Summary) -> list[Document]:
    """Return the scores of a summary. `as_false` is the summary in which failed rows count as False."""
    return [
        {
            "name": score.name,
            "failed": score.failed,
            "metrics": [_metric(value, as_false[score.name][value.name]) for value in score.metrics],
        }
        for score in summary
    ]


def _metric(value: MetricValue, failed_as_false: float | None) -> Document:
    found = value.interval
    return {
        "name": value.name,
        "value": finite(value.value),
        "n": value.n,
        "failed": value.failed,
        "left_out": value.left_out,
        "interval": None if found is None else [finite(found.low), finite(found.high)],
        "interval_method": None if found is None else found.method,
        "without_failed": finite(value.without_failed),
        "failed_as_false": finite(failed_as_false),
        "note": value.note,
    }


def error(found: ErrorCount) -> Document:
    return {
        "type": found.type,
        "message": found.message,
        "class": found.error_class,
        "count": found.count,
        "example_row": found.example,
    }


def attempt(found: Attempt) -> Document:
    failure = found.error
    return {
        "row": found.index,
        "sample": found.sample,
        "status": found.status,
        "started_at": moment(found.started_at),
        "seconds": found.seconds,
        "worker": found.worker,
        "error": failure and {"type": failure.type, "message": failure.message, "class": failure.error_class},
        "replaced": found.replaced,
        "to_be_retried": found.to_be_retried,
    }


def group(found: GroupSummary) -> Document:
    return {
        "group": found.group,
        "results": found.results,
        "failed": found.failed,
        "skipped": found.skipped,
        "scores": {
            name: {
                "mean": score.mean,
                "interval": None if score.interval is None else [score.interval.low, score.interval.high],
                "interval_method": None if score.interval is None else score.interval.method,
                "n": score.n,
            }
            for name, score in found.scores.items()
        },
    }


def load(found: LoadUsage) -> Document:
    return {
        "fixture": found.fixture,
        "loads": found.loads,
        "load_seconds": found.load_seconds,
        "torn_down": found.torn_down,
        "stats": stored(found.stats),
        "errors": found.errors,
    }


def usage_report(report: UsageReport) -> Document:
    return {
        "fixtures": [load(found) for found in report.loads],
        "models": [model(found) for found in report.models],
    }


def usage_of_workers(workers: Sequence[WorkerUsage]) -> Document:
    return {
        "workers": [
            {
                "name": worker.name or None,
                "rows": worker.rows,
                "fixtures": [load(found) for found in worker.loads],
                "models": [model(found) for found in worker.models],
            }
            for worker in workers
        ]
    }


def usage_of_evaluations(evaluations: Sequence[UsageGroup]) -> Document:
    return {
        "evaluations": [
            {"name": group.name, "models": [model(found) for found in group.models]} for group in evaluations
        ]
    }


def model(found: ModelUsage) -> Document:
    return {
        "model": found.usage.model,
        "judge": found.usage.judge,
        "batch": found.usage.batch,
        "kept": usage(found.usage),
        "spent": usage(found.spent),
        "unpriced_tokens": found.unpriced,
    }


def worker(found: WorkerState) -> Document:
    return {
        "service": found.info.service,
        "hostname": found.info.hostname,
        "pid": found.info.pid,
        "queues": list(found.info.queues),
        "device": found.info.device,
        "concurrency": found.info.concurrency,
        "state": found.state,
        "started_at": moment(found.started_at),
        "left_at": moment(found.left_at),
        "reason": found.reason,
        "heard_of_seconds_ago": round(found.age, 3),
        "broker_silent_seconds": None if found.broker_silence is None else round(found.broker_silence, 3),
        "versions": dict(found.info.versions or {}),
        "rows_held": sum(held.rows for held in found.holding),
    }
