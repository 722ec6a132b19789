"""The provider ``openai``: models behind an API like that of OpenAI, wherever they run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from doteval.clients.openai import MeteredAsyncOpenAI, async_openai_client
from doteval.errors import ResourceError
from doteval.providers.handles import ModelHandle

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

_numbers = itertools.count(1)


class EndpointModel:
    """The name of a model, and a client for its API.

    `client` is an `openai.AsyncOpenAI` with the cache, rate limits and usage that all clients of doteval share.
    """

    def __init__(self, name: str, client: MeteredAsyncOpenAI) -> None:
        self.name = name
        self._client = client

    @property
    def client(self) -> MeteredAsyncOpenAI:
        return self._client

    @property
    def base_url(self) -> str:
        """The URL of the API, such as ``http://host:port/v1``, without a slash at the end."""
        return str(self._client.base_url).rstrip("/")

    async def chat(self, messages: str | Iterable[Any], **parameters: Any) -> ChatCompletion:
        """Call ``client.chat.completions.create`` with this model. A text becomes one message of the user.

        Raises what the `openai` package raises.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        given: list[Any] = list(messages)
        reply: ChatCompletion = await self.client.chat.completions.create(model=self.name, messages=given, **parameters)
        return reply

    def get_stats(self) -> dict[str, Any]:
        """The totals of all clients of this process that have the same settings."""
        return self._client.get_stats()


class OpenAIProvider:
    """Makes clients for models: ``setup("a-model")``. ``handle.model`` is an `EndpointModel`.

    `config` are the arguments of `doteval.clients.openai.async_openai_client`.
    """

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        """Make a client for the model named `spec`. No request is made.

        Raises ResourceError if there is neither an API key nor a `base_url`.
        """
        own_endpoint = config.get("base_url") or os.environ.get("OPENAI_BASE_URL")
        if not config.get("api_key") and not os.environ.get("OPENAI_API_KEY"):
            if not own_endpoint:
                raise ResourceError(
                    f"there is no API for the model {spec!r}: no key, and no endpoint",
                    remedy="Set OPENAI_API_KEY, or give setup() a base_url (or set OPENAI_BASE_URL) for a server that "
                    "needs no key.",
                )
            # The user's own server often needs no key, but the SDK requires one.
            config = {**config, "api_key": "unused"}
        model = EndpointModel(spec, async_openai_client(**config))
        return ModelHandle(f"openai:{spec}:{next(_numbers)}", model, _ClientManager(model))


class _ClientManager:
    def __init__(self, model: EndpointModel) -> None:
        self._model = model

    async def teardown(self, resource_id: str) -> None:  # noqa: ARG002 - the signature is ModelManager's
        # The connections stay in the process's pool for these settings.
        await self._model.client.close()
