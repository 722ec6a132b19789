"""Type checkers know the settings of the installed `openai` package, no more and no fewer."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest
from openai import AsyncOpenAI, OpenAI

from doteval.clients.sdk_settings import AsyncOpenAISettings, OpenAISettings, SdkSettings


@pytest.mark.parametrize(("settings", "client"), [(OpenAISettings, OpenAI), (AsyncOpenAISettings, AsyncOpenAI)])
def test_settings_are_those_of_the_client(settings: type[SdkSettings], client: type[OpenAI | AsyncOpenAI]) -> None:
    parameters = inspect.signature(client.__init__).parameters
    public = {name for name in parameters if name != "self" and not name.startswith("_")}
    assert set(get_type_hints(settings)) == public
