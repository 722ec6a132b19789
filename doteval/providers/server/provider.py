"""The provider ``server``: a model server of one's own (vLLM, llama.cpp), one for all processes of a machine."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from doteval.clients.cache.keys import SERVER_HEADER
from doteval.clients.openai import MeteredAsyncOpenAI, async_openai_client
from doteval.errors import UsageError
from doteval.providers.handles import ModelHandle
from doteval.providers.openai import EndpointModel
from doteval.providers.server.connection import ServerHolder, ServerStatus
from doteval.providers.server.directory import ServerSettings

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

_numbers = itertools.count(1)
# A connection is lost some moments before the keeper can say why.
_NEWS_SECONDS = 2.0


class ServedModel(EndpointModel):
    """A model of a server that doteval runs, at the same `base_url` as long as it is used.

    While the server is started again, requests of `client` are tried again as with any server, those of
    `chat` wait for it.
    """

    def __init__(self, name: str, client: MeteredAsyncOpenAI, holder: ServerHolder) -> None:
        super().__init__(name, client)
        self._holder = holder

    @property
    def client(self) -> MeteredAsyncOpenAI:
        """An `openai.AsyncOpenAI` for the server. Raises ResourceError if the server is gone for good."""
        self._holder.check()
        return self._client

    @property
    def status(self) -> ServerStatus:
        """How the server is: its process, and how often it was started again."""
        return self._holder.status

    async def ready(self) -> None:
        """Wait while the server is started again. Raises ResourceError if it is gone for good."""
        if self.status.state != "ready":
            await asyncio.to_thread(self._holder.wait_until_ready)

    async def chat(self, messages: str | Iterable[Any], **parameters: Any) -> ChatCompletion:
        """As `EndpointModel.chat`. A request that was lost with the server is sent again to the next one.

        Raises ResourceError, with the end of the server's output, if the server is gone for good.
        """
        from openai import APIConnectionError

        messages = messages if isinstance(messages, str) else list(messages)
        while True:
            await self.ready()
            restarts = self.status.restarts
            try:
                return await super().chat(messages, **parameters)
            except APIConnectionError:
                if not await asyncio.to_thread(self._holder.wait_for_restart, restarts, _NEWS_SECONDS):
                    raise

    def get_stats(self) -> dict[str, Any]:
        """The client's totals, and the ``servers`` that this process has seen, by machine."""
        status = self.status
        return {**super().get_stats(), "servers": [f"{socket.gethostname()}: {self.base_url}, process {status.pid}"]}


class ServerProvider:
    """``setup("a-model", command=["vllm", "serve", "a-model", "--port", "{port}"])``.

    All processes of a user on one machine share the server of a command. It is started by the first one that
    wants it, and stopped when the last one has left or was killed. ``handle.model`` is a `ServedModel`.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[ServerHolder, MeteredAsyncOpenAI]] = {}

    async def setup(
        self,
        spec: str,
        *,
        command: Sequence[str] = (),
        health: str = "/health",
        base_path: str = "/v1",
        environment: Mapping[str, str] | None = None,
        directory: str | os.PathLike[str] | None = None,
        start_timeout: float = 600.0,
        stop_timeout: float = 15.0,
        hang_timeout: float | None = 120.0,
        max_restarts: int = 3,
        **client: Any,
    ) -> ModelHandle:
        """Start the server unless it is there, and wait until it answers.

        `spec` is the name that requests ask for. `command` is the program and its arguments, run without a
        shell; ``{port}`` in them becomes the port, on which it has to listen at 127.0.0.1. It is up when
        `health` answers with a status of 200 to 299; the API is below `base_path`. `environment` is added to
        that of the first process, less what begins with ``DOTEVAL_``; `directory` is where the server runs, by
        default where this process does. A server that does not answer `start_timeout` seconds after its start
        has failed; one that dies later, or does not answer for `hang_timeout` seconds (None: however long), is
        started again, `max_restarts` times in a row. It has `stop_timeout` seconds to stop. Anything else is for
        `doteval.clients.openai.async_openai_client`.

        Raises UsageError for a command that cannot be one, ResourceError, with the end of the server's
        output, if it does not come up.
        """
        settings = ServerSettings(
            command=_checked(command),
            health=health if health.startswith("/") else f"/{health}",
            environment=dict(environment or {}),
            directory=str(Path(directory or Path.cwd()).absolute()),  # noqa: ASYNC240 - asks no disk
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            hang_timeout=hang_timeout,
            max_restarts=max_restarts,
        )
        holder = ServerHolder(Path(settings.command[0]).name, settings)
        try:
            status = await asyncio.wrap_future(holder.start())
        except BaseException:
            # Nobody waits any more: what is starting is not wanted.
            await asyncio.shield(asyncio.to_thread(holder.leave))
            raise
        headers = {**client.pop("default_headers", {}), SERVER_HEADER: settings.key}
        base_url = f"http://127.0.0.1:{status.port}{base_path}"
        made = async_openai_client(**{"api_key": "unused", **client, "base_url": base_url, "default_headers": headers})
        resource_id = f"server:{spec}:{next(_numbers)}"
        self._held[resource_id] = holder, made
        return ModelHandle(resource_id, ServedModel(spec, made, holder), self)

    async def teardown(self, resource_id: str) -> None:
        """Leave the server, which stops if nobody else uses it; wait for that. Raises ResourceError if it does not."""
        holder, client = self._held.pop(resource_id)
        try:
            await client.close()
        finally:
            await asyncio.to_thread(holder.leave)


def _checked(command: Sequence[str]) -> tuple[str, ...]:
    example = 'command=["vllm", "serve", "a-model", "--port", "{port}"]'
    if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
        raise UsageError(
            "the command of a server has to be a list of texts: the program, and each of its arguments",
            remedy=f"For example {example}. No shell reads it.",
        )
    if not any("{port}" in word for word in command):
        raise UsageError(
            f"the command of the server {Path(command[0]).name} does not say where the port goes",
            remedy=f"Write {{port}} for it: doteval picks one that is free. For example {example}.",
        )
    return tuple(command)
