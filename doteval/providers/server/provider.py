"""The provider ``server``: runs a model server (vLLM, llama.cpp) that all processes of a machine share."""

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
from doteval.providers.server.connection import ServerConnection, ServerStatus
from doteval.providers.server.directory import ServerSettings
from doteval.providers.server.keeper.lifecycle import ServerState

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

_numbers = itertools.count(1)
# A request fails some moments before the keeper reports that the server is restarted.
_RESTART_REPORT_SECONDS = 2.0


class ServedModel(EndpointModel):
    """A model on a server that doteval runs. Its `base_url` stays the same as long as it is used.

    While the server is restarted, requests made with `client` are tried again as with any server; `chat`
    waits until the server is ready.
    """

    def __init__(self, name: str, client: MeteredAsyncOpenAI, connection: ServerConnection) -> None:
        super().__init__(name, client)
        self._connection = connection

    @property
    def client(self) -> MeteredAsyncOpenAI:
        """An `openai.AsyncOpenAI` for the server. Raises ResourceError if the server has failed for good."""
        self._connection.check()
        return self._client

    @property
    def status(self) -> ServerStatus:
        """The state of the server, its process, and how often it was restarted."""
        return self._connection.status

    async def ready(self) -> None:
        """Wait while the server is restarted. Raises ResourceError if it has failed for good."""
        if self.status.state is not ServerState.READY:
            await asyncio.to_thread(self._connection.wait_until_ready)

    async def chat(self, messages: str | Iterable[Any], **parameters: Any) -> ChatCompletion:
        """Like `EndpointModel.chat`, but a request that fails because the server died is sent again after the restart.

        Raises ResourceError, with the end of the server's output, if the server has failed for good.
        """
        from openai import APIConnectionError

        messages = messages if isinstance(messages, str) else list(messages)
        while True:
            await self.ready()
            restarts = self.status.restarts
            try:
                return await super().chat(messages, **parameters)
            except APIConnectionError:
                if not await asyncio.to_thread(self._connection.wait_for_restart, restarts, _RESTART_REPORT_SECONDS):
                    raise

    def get_stats(self) -> dict[str, Any]:
        """The client's totals, and under ``servers`` the machine, URL and process of the server."""
        status = self.status
        return {**super().get_stats(), "servers": [f"{socket.gethostname()}: {self.base_url}, process {status.pid}"]}


class ServerProvider:
    """Runs model servers: ``setup("a-model", command=["vllm", "serve", "a-model", "--port", "{port}"])``.

    All processes of a user on one machine share the server of a command. The first process that needs the server
    starts it; it is stopped when the last one has left it or was killed. ``handle.model`` is a `ServedModel`.
    """

    def __init__(self) -> None:
        self._held: dict[str, tuple[ServerConnection, MeteredAsyncOpenAI]] = {}

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
        """Start the server unless it is running, and wait until it answers.

        spec: the model name that requests carry.
        command: the program and its arguments, run without a shell. ``{port}`` in them is replaced by the port, on
            which the server has to listen at 127.0.0.1.
        health: the path of the URL that answers with a status of 200 to 299 when the server is ready.
        base_path: the path below which the API is.
        environment: added to the environment of the first process, without its ``DOTEVAL_`` variables.
        directory: where the server runs; by default where this process does.
        start_timeout: seconds in which the server has to answer after its start.
        stop_timeout: seconds between SIGTERM and SIGKILL.
        hang_timeout: seconds without an answer after which a ready server is restarted; None: never.
        max_restarts: how often in a row a server that dies or hangs is restarted.
        client: arguments of `doteval.clients.openai.async_openai_client`.

        Raises UsageError if `command` is not a list with a ``{port}``; ResourceError, with the end of the server's
        output, if the server does not become ready.
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
        connection = ServerConnection(Path(settings.command[0]).name, settings)
        try:
            status = await asyncio.wrap_future(connection.start())
        except BaseException:
            # The caller was cancelled or the start failed: do not leave a server behind.
            await asyncio.shield(asyncio.to_thread(connection.leave))
            raise
        headers = {**client.pop("default_headers", {}), SERVER_HEADER: settings.key}
        base_url = f"http://127.0.0.1:{status.port}{base_path}"
        made = async_openai_client(**{"api_key": "unused", **client, "base_url": base_url, "default_headers": headers})
        resource_id = f"server:{spec}:{next(_numbers)}"
        self._held[resource_id] = connection, made
        return ModelHandle(resource_id, ServedModel(spec, made, connection), self)

    async def teardown(self, resource_id: str) -> None:
        """Leave the server and, if nobody else uses it, wait until it has stopped.

        Raises ResourceError if it does not stop in time.
        """
        connection, client = self._held.pop(resource_id)
        try:
            await client.close()
        finally:
            await asyncio.to_thread(connection.leave)


def _checked(command: Sequence[str]) -> tuple[str, ...]:
    example = 'command=["vllm", "serve", "a-model", "--port", "{port}"]'
    if isinstance(command, str) or not command or not all(isinstance(word, str) for word in command):
        raise UsageError(
            "the command of a server has to be a list of strings: the program, and each of its arguments",
            remedy=f"For example {example}. It is run without a shell.",
        )
    if not any("{port}" in word for word in command):
        raise UsageError(
            f"the command of the server {Path(command[0]).name} does not say where the port goes",
            remedy=f"Write {{port}} in its place; doteval replaces it by a free port. For example {example}.",
        )
    return tuple(command)
