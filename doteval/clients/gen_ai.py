"""Names requests and replies as OpenTelemetry's semantic conventions for generative AI do (those of 2026).

Nothing in here is the text of a prompt or of a reply; `doteval.clients.gen_ai_messages` has that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from doteval.clients.steps import UNKNOWN_MODEL, ApiCall
from doteval.core.tracing import Attributes

# The ends of paths of model calls.
_OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/embeddings": "embeddings",
    "/completions": "text_completion",
}
# Requests that ask no model, or are no calls of a row's.
_NO_CALLS = ("/files", "/batches", "/moderations", "/cancel", "/uploads")
_OTHER_OPERATION = "generate_content"
# The ends of the host names of public endpoints. Any other server counts as one that speaks OpenAI's protocol.
_PROVIDERS = {
    "openai.azure.com": "azure.ai.openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
}
_COMPATIBLE = "openai"
_PORTS = {"http": 80, "https": 443}
_NUMBERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "max_tokens": "gen_ai.request.max_tokens",
    "n": "gen_ai.request.choice.count",
}
# What the conventions have as a number with decimals, whatever the author has written.
_DECIMALS = frozenset({"temperature", "top_p", "frequency_penalty", "presence_penalty"})


def request_described(call: ApiCall) -> tuple[str, Attributes] | None:
    """The name of the span of a call, and its first attributes; None for requests that call no model."""
    request = call.request
    url = urlsplit(str(request.url))
    if request.method != "POST" or url.path.endswith(_NO_CALLS):
        return None
    operation = next((name for end, name in _OPERATIONS.items() if url.path.endswith(end)), _OTHER_OPERATION)
    host = url.hostname or ""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider_of(host),
        "server.address": host,
        "server.port": url.port or _PORTS.get(url.scheme, 0),
    }
    if url.path.endswith("/responses"):
        # Only where it differs from what the operation says; each attribute takes its time.
        attributes["openai.api.type"] = "responses"
    name = operation
    if call.model != UNKNOWN_MODEL:
        attributes["gen_ai.request.model"] = call.model
        name = f"{operation} {call.model}"
    body = call.body
    if body.get("stream") is True:
        attributes["gen_ai.request.stream"] = True
    for parameter, attribute in _NUMBERS.items():
        value = body.get(parameter)
        if type(value) is int or type(value) is float:
            attributes[attribute] = float(value) if parameter in _DECIMALS else value
    if attributes.get("gen_ai.request.choice.count") == 1:
        del attributes["gen_ai.request.choice.count"]
    return name, attributes


def provider_of(host: str) -> str:
    """The provider at a host, as the conventions name it.

    >>> provider_of("mine.openai.azure.com"), provider_of("localhost")
    ('azure.ai.openai', 'openai')
    """
    return next((name for end, name in _PROVIDERS.items() if host.endswith(end)), _COMPATIBLE)


def reply_attributes(values: Iterable[Any]) -> dict[str, Any]:
    """Model, id and finish reasons of a reply. values: the JSON value of the reply, or those of the events of a stream.

    >>> reply_attributes([{"id": "c", "model": "m-1", "choices": [{"finish_reason": "stop"}]}])
    {'gen_ai.response.id': 'c', 'gen_ai.response.model': 'm-1', 'gen_ai.response.finish_reasons': ['stop']}
    """
    attributes: dict[str, Any] = {}
    reasons: list[str] = []
    for value in values:
        if not isinstance(value, dict):
            continue
        reply = value["response"] if isinstance(value.get("response"), dict) else value
        for key in ("id", "model"):
            if isinstance(reply.get(key), str) and reply[key]:
                attributes[f"gen_ai.response.{key}"] = reply[key]
        choices = reply.get("choices")
        if isinstance(choices, list):
            found = [each.get("finish_reason") for each in choices if isinstance(each, dict)]
            reasons += [reason for reason in found if isinstance(reason, str)]
        elif reply.get("status") in ("completed", "incomplete", "failed"):
            reasons = [_reason_of_response(reply)]
    if reasons:
        attributes["gen_ai.response.finish_reasons"] = reasons
    return attributes


def _reason_of_response(reply: dict[str, Any]) -> str:
    """Why a reply of the Responses API ended."""
    details = reply.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return reason if isinstance(reason, str) else str(reply["status"])


def usage_attributes(usage: dict[str, int]) -> dict[str, int]:
    """Token counts by the names of `Usage`, as the conventions name them. Kinds without tokens are left out.

    >>> usage_attributes({"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 0, "reasoning_tokens": 2})
    {'gen_ai.usage.input_tokens': 3, 'gen_ai.usage.output_tokens': 4, 'gen_ai.usage.reasoning.output_tokens': 2}
    """
    attributes = {
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
    }
    if usage["cached_tokens"]:
        attributes["gen_ai.usage.cache_read.input_tokens"] = usage["cached_tokens"]
    if usage["reasoning_tokens"]:
        attributes["gen_ai.usage.reasoning.output_tokens"] = usage["reasoning_tokens"]
    return attributes
