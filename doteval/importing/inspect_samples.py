"""Turns a sample of inspect-ai's log into the values of a row, and its outcome."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from doteval.core.results import ErrorClass, Outcome, RowError, RowStatus, Usage
from doteval.importing.inspect_scores import ScorerMetrics, scores_of
from doteval.importing.logs import Remarks, mapping

# Fields that are read, or that repeat what others say.
_READ = frozenset(
    (
        *("id", "epoch", "input", "choices", "target", "messages", "output", "score", "scores", "metadata"),
        *("model_usage", "role_usage", "started_at", "completed_at", "total_time", "working_time", "uuid"),
        *("error", "error_retries", "attachments", "events_data", "limit", "invalidation", "turn_count"),
        *("token_limit", "token_limit_type", "token_limit_usage", "message_limit", "time_limit", "working_limit"),
    )
)
# Fields of messages that differ from run to run, so that equal inputs would not be equal.
_OF_ONE_RUN = frozenset({"id", "source", "model", "metadata"})
# The columns that every row has; metadata of the sample has its own columns, unless it has one of these names.
OWN_COLUMNS = ("id", "input", "target", "choices")
_ATTACHMENT = "attachment://"
# An exception as `repr` writes it, such as ValueError('no answer').
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]*)\((.*)\)", re.DOTALL)
_TIME_LIMITS = frozenset({"time", "working"})


def row_values(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a sample's row by column.

    >>> row_values({"id": 1, "input": "2+2", "target": "4", "metadata": {"kind": "sum"}})
    {'id': 1, 'input': '2+2', 'target': '4', 'kind': 'sum'}
    """
    attachments = mapping(sample.get("attachments"))
    values = {"id": sample.get("id"), "input": _messages(sample.get("input"), attachments)}
    values["target"] = sample.get("target")
    if sample.get("choices"):
        values["choices"] = sample["choices"]
    for name, value in mapping(sample.get("metadata")).items():
        values[f"metadata.{name}" if name in OWN_COLUMNS else name] = _resolved(value, attachments)
    return values


def outcome_of(sample: Mapping[str, Any], metrics: ScorerMetrics, remarks: Remarks) -> Outcome:
    """Return what came out of a sample. A sample with an error is failed, and so is one that a limit ended unscored."""
    attachments = mapping(sample.get("attachments"))
    scored = sample.get("scores")
    if scored is None and isinstance(sample.get("score"), dict):
        # Logs of 2024 have one score a sample, without the scorer's name.
        scored = {next(iter(metrics.by_scorer), "score"): sample["score"]}
    scores = tuple(scores_of(mapping(scored), metrics, remarks))
    error = _error(sample, scored=bool(scores))
    metadata = {name: sample[name] for name in ("uuid", "limit", "error_retries", "invalidation") if sample.get(name)}
    if "limit" in metadata and error is None:
        remarks.note(f"samples that reached a limit ({mapping(sample['limit']).get('type')}) and were scored")
    if "invalidation" in metadata:
        remarks.note("samples that were marked as invalid, whose scores count")
    for name, value in sample.items():
        if name not in _READ and value not in (None, [], {}, ""):
            remarks.note(f"{name} of samples left out")
    prompt, response = _conversation(sample, attachments)
    began = seconds_of(sample.get("started_at"))
    return Outcome(
        status=RowStatus.DONE if error is None else RowStatus.FAILED,
        started_at=began or 0.0,
        seconds=_seconds(sample, began),
        scores=scores,
        prompt=prompt,
        model_response=response,
        metadata=metadata,
        error=error,
        usage=_usage(sample),
    )


def seconds_of(written: Any) -> float | None:
    """Return a time that inspect-ai has written, in seconds since the epoch; None if it is none.

    >>> seconds_of("1970-01-01T00:01:00+00:00"), seconds_of("")
    (60.0, None)
    """
    try:
        moment = datetime.fromisoformat(written)
    except (TypeError, ValueError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parsed_error(text: str) -> tuple[str, str]:
    """Return the type and the message of an exception that `repr` has written.

    >>> parsed_error("ValueError('no answer')"), parsed_error("it failed")
    (('ValueError', 'no answer'), ('Error', 'it failed'))
    """
    found = _EXCEPTION.fullmatch(text.strip())
    if found is None:
        return "Error", text
    try:
        message = ast.literal_eval(found[2])
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        message = found[2]
    return found[1], message if isinstance(message, str) else found[2]


def _error(sample: Mapping[str, Any], *, scored: bool) -> RowError | None:
    error, limit = sample.get("error"), mapping(sample.get("limit"))
    if isinstance(error, dict):
        kind, message = parsed_error(str(error.get("message", "")))
        return RowError(kind, message, traceback=str(error.get("traceback") or ""))
    if error:
        return RowError(*parsed_error(str(error)))
    if limit and not scored:
        error_class = ErrorClass.TIMEOUT if limit.get("type") in _TIME_LIMITS else ErrorClass.EVALUATION
        message = f"the sample reached its limit of {limit.get('type')}: {limit.get('limit')}"
        return RowError("LimitExceeded", message, error_class)
    return None


def _conversation(sample: Mapping[str, Any], attachments: Mapping[str, Any]) -> tuple[Any, Any]:
    """What the model was sent, as text or messages, and what it answered."""
    messages = _messages(sample.get("messages"), attachments) or []
    output = mapping(sample.get("output"))
    first = next(iter(output.get("choices") or ()), None)
    answer = mapping(mapping(first).get("message"))
    response = output.get("completion") or _text(answer.get("content"))
    if answer.get("tool_calls"):
        response = {"content": response, "tool_calls": answer["tool_calls"]}
    if not isinstance(messages, list) or not messages:
        return _messages(sample.get("input"), attachments), _resolved(response, attachments) or None
    if mapping(messages[-1]).get("role") == "assistant":
        messages = messages[:-1]
    if len(messages) == 1 and mapping(messages[0]).get("role") == "user" and isinstance(messages[0]["content"], str):
        return messages[0]["content"], _resolved(response, attachments) or None
    return messages, _resolved(response, attachments) or None


def _text(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str)) or content


def _messages(value: Any, attachments: Mapping[str, Any]) -> Any:
    if not isinstance(value, list):
        return _resolved(value, attachments)
    return [
        {name: _resolved(part, attachments) for name, part in each.items() if name not in _OF_ONE_RUN and part}
        if isinstance(each, dict)
        else each
        for each in value
    ]


def _resolved(value: Any, attachments: Mapping[str, Any]) -> Any:
    """The value with long texts in place of the references by which the log holds them."""
    if isinstance(value, str):
        if value.startswith(_ATTACHMENT):
            return attachments.get(value.removeprefix(_ATTACHMENT), value)
        return value
    if not attachments:
        return value
    if isinstance(value, list):
        return [_resolved(member, attachments) for member in value]
    if isinstance(value, dict):
        return {name: _resolved(member, attachments) for name, member in value.items()}
    return value


def _seconds(sample: Mapping[str, Any], began: float | None) -> float:
    """How long the sample took, without the time that it waited, where the log says so."""
    for name in ("working_time", "total_time"):
        if isinstance(sample.get(name), (int, float)):
            return float(sample[name])
    ended = seconds_of(sample.get("completed_at"))
    return max(0.0, ended - began) if began is not None and ended is not None else 0.0


def _usage(sample: Mapping[str, Any]) -> tuple[Usage, ...]:
    calls: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for event in sample.get("events") or ():
        if isinstance(event, dict) and event.get("event") == "model":
            model = str(event.get("model"))
            calls[model] += 1
            hits[model] += event.get("cache") == "read"
            seconds[model] = seconds.get(model, 0.0) + float(event.get("working_time") or 0.0)
    used = mapping(sample.get("model_usage"))
    return tuple(
        _model_usage(model, mapping(used.get(model)), calls[model], hits[model], seconds.get(model, 0.0))
        for model in dict.fromkeys((*used, *calls))
    )


def _model_usage(model: str, used: Mapping[str, Any], calls: int, hits: int, seconds: float) -> Usage:
    def tokens(name: str) -> int:
        value = used.get(name)
        return int(value) if isinstance(value, (int, float)) else 0

    read = tokens("input_tokens_cache_read")
    cost = used.get("total_cost")
    return Usage(
        model,
        # A log without events does not say how many calls there were; one at least.
        requests=calls or 1,
        attempts=max(0, (calls or 1) - hits),
        cache_hits=hits,
        # inspect-ai counts what a provider's cache has read and written apart, doteval as a part of the prompt.
        prompt_tokens=tokens("input_tokens") + read + tokens("input_tokens_cache_write"),
        completion_tokens=tokens("output_tokens"),
        cached_tokens=read,
        reasoning_tokens=tokens("reasoning_tokens"),
        cost=float(cost) if isinstance(cost, (int, float)) else None,
        seconds=seconds,
    )
