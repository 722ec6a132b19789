"""Records usage where requests leave the process, so that every try is counted, the SDK's own retries too.

Token counts come from the ``usage`` of replies: chat completions, responses and embeddings, whole or streamed. A
streamed chat completion reports it only if it was asked to with ``stream_options={"include_usage": True}``.

Only the model, the status and the token counts of requests and replies are read. Headers, which hold keys, are never
kept.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from doteval.clients.bad_replies import (
    BadReply,
    error_response,
    is_event_stream,
    is_json,
    read_whole,
    status_error,
    stream_check,
)
from doteval.clients.steps import ApiCall, Response, Step
from doteval.clients.streams import ServerSentEvent, StreamObserver, is_done
from doteval.core import clocks, lenient_json
from doteval.core.histogram import NO_LATENCY, Latency
from doteval.core.metering import Meter
from doteval.core.prices import PriceTable
from doteval.core.results import USAGE_IDENTITY, Usage

# What is added when a try begins, by model, by whether it is the first try of its request, and whether a judge asks.
_BEGINNINGS: dict[tuple[str, bool, bool], Usage] = {}
_MOST_BEGINNINGS = 1_000
_COUNTS = tuple(
    field.name for field in fields(Usage) if field.name not in (*USAGE_IDENTITY, "cost", "batch_cost", "latency")
)


class UsageTotals:
    """The usage of one HTTP client, by model. Safe to use from threads.

    >>> totals = UsageTotals()
    >>> totals.add(Usage("m", requests=1, attempts=1, prompt_tokens=5), meter=None)
    >>> totals.stats()["models"]["m"]["prompt_tokens"]
    5
    """

    def __init__(self) -> None:
        self._totals = Meter()
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()

    def add(self, usage: Usage, meter: Meter | None) -> None:
        """Add usage, also to the meter of the row that caused it."""
        self._totals.add(usage)
        if meter is not None:
            meter.add(usage)

    def add_error(self, model: str) -> None:
        """Count a try without a usable reply."""
        with self._lock:
            self._errors[model] += 1

    def stats(self) -> dict[str, Any]:
        """Counts over all models, and the same by model under ``models``.

        ``requests`` (calls of the SDK's methods), ``attempts`` (tries: requests and their retries), ``errors`` (tries
        without a usable reply), ``unfinished`` (tries whose end has not been seen), tokens by kind, ``seconds`` spent
        on tries and ``waited`` for rate limits; ``cost`` in US dollars, if the models have prices.
        """
        with self._lock:
            errors = dict(self._errors)
        used: dict[str, Usage] = {}
        for usage in self._totals.reading():
            used[usage.model] = used[usage.model] + usage if usage.model in used else usage
        models: dict[str, dict[str, Any]] = {}
        for usage in used.values():
            models[usage.model] = {"errors": errors.get(usage.model, 0)}
            models[usage.model] |= {name: getattr(usage, name) for name in _COUNTS}
            if usage.cost is not None:
                models[usage.model]["cost"] = usage.cost
        names = ("errors", *_COUNTS)
        totals: dict[str, Any] = {name: sum(counts[name] for counts in models.values()) for name in names}
        costs = [counts["cost"] for counts in models.values() if "cost" in counts]
        if costs:
            totals["cost"] = sum(costs)
        return {**totals, "models": models}


def usage_step(step: Step, totals: UsageTotals, prices: PriceTable) -> Step:
    """A step around `step`, which sends, that records every try. Other steps go around this one.

    A try is recorded when it begins, so that it counts if the process is killed before the reply comes.

    A bad reply with status 200 leaves it as the response with the status that fits; see `bad_replies`.
    """

    async def record(call: ApiCall) -> Response:
        recorder = _TryRecorder(call, totals, prices)
        recorder.begins()
        try:
            response = await step(call)
            is_read = not call.streamed
            if not is_read and (response.status_code >= 400 or _is_no_stream(call, response)):
                await call.io.read(response)
                is_read = True
        except BaseException:
            recorder.failed()
            raise
        if is_read:
            fault = recorder.replied(response)
            call.tokens = recorder.reported_tokens
            return response if fault is None else error_response(call, response.headers, fault)
        call.tokens = None
        recorder.replying()
        if is_event_stream(call, response):
            call.io.observe(response, _EventReader(recorder, response.headers), events=True)
        elif is_json(response.headers.get("content-type", "")):
            call.io.observe(response, _WholeReader(recorder, response.headers), events=False)
        else:
            recorder.answered()
        return response

    return record


def _is_no_stream(call: ApiCall, response: Response) -> bool:
    """Whether a call that asked for a stream is answered by something else, such as an error."""
    return bool(call.body.get("stream")) and not is_event_stream(call, response)


class _TryRecorder:
    """Records one try, for the totals and for the meter of the row that makes it."""

    def __init__(self, call: ApiCall, totals: UsageTotals, prices: PriceTable) -> None:
        self.call = call
        self._totals = totals
        self._prices = prices
        self._meter = call.meter
        self._model = call.model
        # The SDK numbers its tries in a header, the retry step numbers its own; without a number it is the first.
        sdk_retries = call.request.headers.get("x-stainless-retry-count", "0")
        self._is_first = sdk_retries == "0" and call.try_number == 1
        self._reported = Usage(self._model)
        self._began = self._since = clocks.perf_counter()

    @property
    def reported_tokens(self) -> int:
        """The tokens that the reply has reported so far."""
        return self._reported.prompt_tokens + self._reported.completion_tokens

    def begins(self) -> None:
        """The try is about to be sent."""
        key = self._model, self._is_first, self.call.judge
        usage = _BEGINNINGS.get(key)
        if usage is None:
            usage = Usage(self._model, requests=int(self._is_first), attempts=1, unfinished=1, judge=self.call.judge)
            if len(_BEGINNINGS) < _MOST_BEGINNINGS:
                _BEGINNINGS[key] = usage
        self._totals.add(usage, self._meter)

    def failed(self) -> None:
        """The try ended without a usable reply."""
        self._totals.add_error(self._model)
        self._add(ends=True)

    def replied(self, response: Response) -> BadReply | None:
        """Record a reply whose body has been read. Returns what is wrong with it."""
        if response.status_code >= 400:
            self.failed()
            return None
        reply, fault = read_whole(self.call, response.headers, response.content)
        # Bad replies may report usage as well, which was paid for.
        self._add(_usage_in(reply), NO_LATENCY if fault else self._latency(), ends=True)
        if fault is not None:
            self._totals.add_error(self._model)
        return fault

    def replying(self) -> None:
        """Record the time until a reply began that the caller will read as a stream."""
        self._add()

    def answered(self) -> None:
        """The rest of the reply will not be looked at."""
        self._add(ends=True)

    def broken(self) -> None:
        """The body ended early, or turned out to be an error, after the reply had begun."""
        self._totals.add_error(self._model)
        self._add(ends=True)

    def read(self, usage: dict[str, Any]) -> None:
        """A streamed body reported its usage, final or so far."""
        self._add(usage)
        self.call.tokens = self.reported_tokens

    def ended(self, fault: BadReply | None, headers: Mapping[str, str]) -> None:
        """A streamed body was read to its end. Raises the SDK's error if it was bad."""
        if fault is None:
            self._add(latency=self._latency(), ends=True)
            return
        self.broken()
        raise status_error(self.call, headers, fault)

    def _latency(self) -> Latency:
        return Latency.of(clocks.perf_counter() - self._began)

    def _add(
        self, reported: dict[str, Any] | None = None, latency: Latency = NO_LATENCY, *, ends: bool = False
    ) -> None:
        now = clocks.perf_counter()
        tokens = self._reported if reported is None else self._tokens(reported)
        self._totals.add(
            Usage(
                self._model,
                # Some servers report a running total with every event.
                prompt_tokens=tokens.prompt_tokens - self._reported.prompt_tokens,
                completion_tokens=tokens.completion_tokens - self._reported.completion_tokens,
                cached_tokens=tokens.cached_tokens - self._reported.cached_tokens,
                reasoning_tokens=tokens.reasoning_tokens - self._reported.reasoning_tokens,
                unfinished=-1 if ends else 0,
                cost=None if reported is None else _since(tokens.cost, self._reported.cost),
                batch_cost=None if reported is None else _since(tokens.batch_cost, self._reported.batch_cost),
                seconds=now - self._since,
                judge=self.call.judge,
                latency=latency,
            ),
            self._meter,
        )
        self._reported, self._since = tokens, now
        if reported is not None:
            self.call.reported = tokens

    def _tokens(self, reported: dict[str, Any]) -> Usage:
        counts = _tokens(reported)
        tier = self.call.body.get("service_tier")
        cost, batch_cost = (
            self._prices.cost(
                self._model,
                prompt_tokens=counts["prompt_tokens"],
                completion_tokens=counts["completion_tokens"],
                cached_tokens=counts["cached_tokens"],
                # The package's prices are those of text; of other tokens the cost is not known.
                url="" if _has_audio(reported) else str(self.call.request.url),
                tier=tier if isinstance(tier, str) else None,
                batch=batch,
            )
            for batch in (False, True)
        )
        return Usage(
            self._model,
            prompt_tokens=counts["prompt_tokens"],
            completion_tokens=counts["completion_tokens"],
            cached_tokens=counts["cached_tokens"],
            reasoning_tokens=counts["reasoning_tokens"],
            cost=cost,
            batch_cost=batch_cost,
        )


class _EventReader(StreamObserver):
    """Finds usage and faults in server-sent events."""

    def __init__(self, recorder: _TryRecorder, headers: Mapping[str, str]) -> None:
        self._recorder = recorder
        self._headers = headers
        self._check = stream_check(recorder.call)

    def on_event(self, event: ServerSentEvent) -> None:
        value = None if is_done(event) else _loaded(event.data)
        usage = _usage_in(value)
        if usage is not None:
            self._recorder.read(usage)
        fault = self._check.fault_in(event, value)
        if fault is not None:
            raise status_error(self._recorder.call, self._headers, fault)

    def on_end(self) -> None:
        self._recorder.ended(self._check.fault_at_end(), self._headers)

    def on_error(self) -> None:
        self._recorder.broken()


class _WholeReader(StreamObserver):
    """Finds usage and faults in a JSON reply that is read in chunks."""

    def __init__(self, recorder: _TryRecorder, headers: Mapping[str, str]) -> None:
        self._recorder = recorder
        self._headers = headers
        self._chunks: list[bytes] = []

    def on_chunk(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_end(self) -> None:
        reply, fault = read_whole(self._recorder.call, self._headers, b"".join(self._chunks))
        usage = _usage_in(reply)
        if usage is not None:
            self._recorder.read(usage)
        self._recorder.ended(fault, self._headers)

    def on_error(self) -> None:
        self._recorder.broken()


def _since(cost: float | None, before: float | None) -> float | None:
    return None if cost is None else cost - (before or 0.0)


def _loaded(text: bytes) -> Any:
    """The JSON value of an event, None if it is not JSON."""
    try:
        return lenient_json.loads(text)
    except ValueError:
        return None


def usage_of_reply(reply: Any) -> dict[str, int] | None:
    """The tokens that a whole reply reports, by the names of `Usage`; None if it reports none.

    >>> usage_of_reply({"usage": {"prompt_tokens": 3, "completion_tokens": 4}})["completion_tokens"]
    4
    """
    usage = _usage_in(reply)
    return None if usage is None else _tokens(usage)


def _usage_in(body: Any) -> dict[str, Any] | None:
    """The usage of a reply or an event; in events of the Responses API it is inside the response."""
    if not isinstance(body, dict):
        return None
    usage = body.get("usage")
    if usage is None and isinstance(body.get("response"), dict):
        usage = body["response"].get("usage")
    return usage if isinstance(usage, dict) else None


def _tokens(usage: dict[str, Any]) -> dict[str, int]:
    """Token counts under the names of chat completions and embeddings, or of the Responses API."""
    prompt = "input" if "input_tokens" in usage else "prompt"
    completion = "output" if "output_tokens" in usage else "completion"
    return {
        "prompt_tokens": _count(usage, f"{prompt}_tokens"),
        "completion_tokens": _count(usage, f"{completion}_tokens"),
        "cached_tokens": _count(usage.get(f"{prompt}_tokens_details"), "cached_tokens"),
        "reasoning_tokens": _count(usage.get(f"{completion}_tokens_details"), "reasoning_tokens"),
    }


def _has_audio(usage: dict[str, Any]) -> bool:
    """Whether some of the tokens are audio, of the prompt or of the completion."""
    details = [value for name, value in usage.items() if name.endswith("_tokens_details")]
    return any(_count(counts, "audio_tokens") for counts in details)


def _count(counts: Any, name: str) -> int:
    """A number of tokens. Some servers write it as a decimal, or as a text."""
    value = counts.get(name) if isinstance(counts, dict) else None
    if type(value) is int:
        return value
    try:
        number = float(value) if isinstance(value, float | str) else 0.0
    except ValueError:
        return 0
    return round(number) if math.isfinite(number) else 0
