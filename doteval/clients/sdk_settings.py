"""The settings of the `openai` package's clients, so that type checkers find one that is misspelt.

The package has them in signatures only. What has a type of a package that differs by its version is `Any`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypedDict


class SdkSettings(TypedDict, total=False):
    """The settings that both clients take."""

    admin_api_key: str | None
    workload_identity: Any
    organization: str | None
    project: str | None
    webhook_secret: str | None
    provider: Any
    base_url: Any
    data_residency: Any
    websocket_base_url: Any
    timeout: Any
    max_retries: int
    default_headers: Mapping[str, str] | None
    default_query: Mapping[str, object] | None
    http_client: Any


class OpenAISettings(SdkSettings, total=False):
    """The settings that `openai.OpenAI` takes."""

    api_key: str | Callable[[], str] | None


class AsyncOpenAISettings(SdkSettings, total=False):
    """The settings that `openai.AsyncOpenAI` takes."""

    api_key: str | Callable[[], Awaitable[str]] | None
