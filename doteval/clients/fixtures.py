"""Session fixtures that every evaluation file may use. A fixture of the same name in the user's files overrides them.

Clients are imported and made when an evaluation asks for one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from doteval.clients.openai import MeteredAsyncOpenAI, MeteredOpenAI


@pytest.fixture(scope="session")
def openai_client() -> MeteredOpenAI:
    """A shared `openai.OpenAI` that records its usage. Skips if neither OPENAI_API_KEY nor OPENAI_BASE_URL is set."""
    settings = _settings()
    from doteval.clients.openai import openai_client as make

    return make(**settings)


@pytest.fixture(scope="session")
def async_openai_client() -> MeteredAsyncOpenAI:
    """A shared `openai.AsyncOpenAI` that records its usage. Skips as `openai_client` does."""
    settings = _settings()
    from doteval.clients.openai import async_openai_client as make

    return make(**settings)


def _settings() -> dict[str, Any]:
    if os.environ.get("OPENAI_API_KEY"):
        return {}
    if os.environ.get("OPENAI_BASE_URL"):
        # A self-hosted server often needs no key, but the SDK does.
        return {"api_key": "unused"}
    pytest.skip("no OpenAI API: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that needs no key")
