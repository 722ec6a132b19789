"""Records as JSON documents. Scripts depend on them: keys may be added, never renamed or removed.

Times are ISO 8601 in UTC, durations are in seconds, costs in US dollars. A number that does not exist is null.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from doteval.core.histogram import QUANTILES
from doteval.core.json_codec import encode
from doteval.core.results import Record, Usage
from doteval.core.row_labels import RowLabel, label_of

Document = dict[str, Any]


def record(found: Record) -> Document:
    """Return a record. The user's values have the form that the store keeps them in (`doteval.core.json_codec`)."""
    row, outcome = found.row, found.outcome
    failure = outcome.error
    return {
        "row": row.index,
        "sample": row.sample,
        "key": row.key,
        "values": stored(dict(row.values)),
        "status": outcome.status,
        "scores": [
            {"name": score.name, "value": stored(score.value), "metadata": stored(dict(score.metadata))}
            for score in outcome.scores
        ],
        "prompt": stored(outcome.prompt),
        "model_response": stored(outcome.model_response),
        "metadata": stored(dict(outcome.metadata)),
        "error": failure
        and {
            "type": failure.type,
            "message": failure.message,
            "class": failure.error_class,
            "traceback": failure.traceback,
        },
        "started_at": moment(datetime.fromtimestamp(outcome.started_at, UTC)),
        "seconds": outcome.seconds,
        "usage": [usage(used) for used in outcome.usage],
        "worker": found.worker,
        "label": label_of(found.labels),
        "labels": [label(each) for each in found.labels],
    }


def label(found: RowLabel) -> Document:
    """Return what one person says of a row."""
    return {
        "person": found.person,
        "judgement": found.judgement,
        "note": found.note,
        "labelled_at": moment(found.labelled_at),
        "of_earlier": found.of_earlier,
    }


def usage(used: Usage) -> Document:
    return {
        "model": used.model,
        "judge": used.judge,
        "batch": used.batch,
        "requests": used.requests,
        "attempts": used.attempts,
        "cache_hits": used.cache_hits,
        "cache_misses": used.cache_misses,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cached_tokens": used.cached_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "unfinished": used.unfinished,
        "cost": finite(used.cost),
        "seconds": used.seconds,
        "hit_rate": used.hit_rate,
        "waited": used.waited,
        "latency": {name: used.latency.quantile(share) for name, share in QUANTILES},
    }


def moment(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="milliseconds")


def stored(value: Any) -> Any:
    return json.loads(encode(value))


def finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
