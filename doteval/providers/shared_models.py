"""Sets up equal models only once in a worker process, and tears them down with its session.

Each call of `setup` returns a handle of its own to the shared model. The model stays when the last handle is torn
down, since the next row may need it again. It is torn down when another model is set up, which may need its memory,
or at the end of the session.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from doteval.core.error_leaves import in_one_line
from doteval.core.plugins import did_you_mean
from doteval.errors import NotFoundError, ResourceError
from doteval.providers.handles import ModelHandle, ModelProvider
from doteval.providers.registry import available, model_provider

logger = logging.getLogger("doteval.providers")

# A teardown that hangs must not prevent those of other models.
_TEARDOWN_SECONDS = 120.0


@dataclass(eq=False)
class _Resource:
    """A model that is set up, or is being set up.

    It keeps `config` alive, so that no other object gets one of the ids in `key`.
    """

    key: object
    name: str
    spec: str
    config: Mapping[str, Any]
    loop: asyncio.AbstractEventLoop
    handle: Future[ModelHandle] = field(default_factory=Future)
    leases: int = 0
    task: asyncio.Task[None] | None = None

    def describe(self) -> str:
        return f"{self.name} {self.spec!r}"


class ModelProviders:
    """The model providers of a session, by name: ``await model_providers["openai"].setup("a-model")``.

    Names can be tested with ``in`` and iterated over. `find` returns the provider with a name, and `names` returns
    all names.
    """

    def __init__(
        self,
        find: Callable[[str], ModelProvider] = model_provider,
        names: Callable[[], tuple[str, ...]] = available,
    ) -> None:
        self._find = find
        self._names = names
        self._providers: dict[str, SharedProvider] = {}
        self._resources: dict[object, _Resource] = {}
        self._failures: list[str] = []
        self._lock = threading.Lock()
        self._closed = False

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __getitem__(self, name: str) -> SharedProvider:
        """The provider with a name, which is made on first use.

        Raises NotFoundError, which suggests similar names, if there is none; UsageError if it cannot be loaded.
        """
        if name not in self:
            raise NotFoundError(f"no model provider named {name!r}", remedy=did_you_mean(name, self._names()))
        with self._lock:
            if name not in self._providers:
                self._providers[name] = SharedProvider(self, name, self._find(name))
            return self._providers[name]

    def get_stats(self) -> dict[str, Any]:
        """The statistics of each model, by provider and spec."""
        with self._lock:
            resources = [resource for resource in self._resources.values() if _is_set_up(resource)]
        return {f"{each.name} {each.spec}": each.handle.result().get_stats() for each in resources}

    def close(self) -> None:
        """Tear down all models, the last one first, even if some teardowns fail.

        Each model is torn down on the event loop on which it was set up, if that loop still runs. Do not call this
        in the thread of an event loop.

        Raises ResourceError, which lists every teardown that failed.
        """
        with self._lock:
            self._closed = True
            resources = list(reversed(self._resources.values()))
            self._resources.clear()
        for resource in resources:
            _run_on(resource.loop, self._end(resource))
        if self._failures:
            failures, self._failures = self._failures, []
            what = "models could not be torn down"
            raise ResourceError("\n".join([what, *(f"  {line}" for line in failures)]), logged=what)

    async def _lease(self, provider: SharedProvider, spec: str, config: dict[str, Any]) -> ModelHandle:
        key = (provider.name, spec, _frozen(config))
        with self._lock:
            if self._closed:
                raise ResourceError("the session has ended: no model can be set up any more")
            resource = self._resources.get(key)
            if resource is None:
                loop = asyncio.get_running_loop()
                resource = self._resources[key] = _Resource(key, provider.name, spec, config, loop)
                # A task of its own: if the caller is cancelled, others may still wait for the model.
                resource.handle.set_running_or_notify_cancel()
                resource.task = loop.create_task(self._set_up(resource, provider.own))
            resource.leases += 1
        try:
            handle = await asyncio.shield(asyncio.wrap_future(resource.handle))
        except BaseException:
            self._release(resource)
            raise
        return ModelHandle(handle.resource_id, handle.model, _Lease(self, resource))

    def _release(self, resource: _Resource) -> None:
        with self._lock:
            resource.leases -= 1

    async def _set_up(self, resource: _Resource, provider: ModelProvider) -> None:
        try:
            await self._make_room()
            handle = await provider.setup(resource.spec, **resource.config)
        except BaseException as error:
            with self._lock:
                if self._resources.get(resource.key) is resource:
                    del self._resources[resource.key]
            if isinstance(error, Exception):
                # All callers that wait for the model raise it.
                resource.handle.set_exception(error)
            else:
                resource.handle.set_exception(ResourceError(f"setting up {resource.describe()} was interrupted"))
                raise
        else:
            resource.handle.set_result(handle)

    async def _make_room(self) -> None:
        """Tear down the models that no handle uses: two large models may not fit into memory."""
        with self._lock:
            idle = [resource for resource in self._resources.values() if not resource.leases and _is_set_up(resource)]
            for resource in idle:
                del self._resources[resource.key]
        for resource in idle:
            await self._end(resource)

    async def _end(self, resource: _Resource) -> None:
        """Tear a model down. An error is kept, and `close` reports it."""
        if resource.task is not None and not resource.task.done():
            resource.task.cancel()
            await asyncio.wait([resource.task])
        if not _is_set_up(resource):
            return
        try:
            async with asyncio.timeout(_TEARDOWN_SECONDS):
                await resource.handle.result().teardown()
        except Exception as error:
            logger.exception("the model %s could not be torn down", resource.describe())
            self._failures.append(f"{resource.describe()}: {in_one_line(error)}")


class SharedProvider:
    """A model provider that sets up equal models only once. `own` is the provider that does it."""

    def __init__(self, providers: ModelProviders, name: str, own: ModelProvider) -> None:
        self.name = name
        self.own = own
        self._providers = providers

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        """Return a new handle to the model of `spec` and `config`, which is set up if that has not happened yet.

        Raises what the provider's own `setup` raises; ResourceError after the end of the session.
        """
        return await self._providers._lease(self, spec, config)


class _Lease:
    """The manager of one handle to a shared model. Its teardown releases the model, which stays set up."""

    def __init__(self, providers: ModelProviders, resource: _Resource) -> None:
        self._providers = providers
        self._resource = resource

    async def teardown(self, resource_id: str) -> None:  # noqa: ARG002 - the signature is ModelManager's
        self._providers._release(self._resource)


def _is_set_up(resource: _Resource) -> bool:
    return resource.handle.done() and resource.handle.exception() is None


def _run_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]) -> None:
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    elif loop.is_closed():
        asyncio.run(coroutine)
    else:
        loop.run_until_complete(coroutine)


def _frozen(value: Any) -> object:
    """The value as part of a key. Keys are equal only for values of the same type with equal parts."""
    if isinstance(value, Mapping):
        return "mapping", frozenset((name, _frozen(member)) for name, member in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, set | frozenset):
        return "set", frozenset(map(_frozen, value))
    try:
        hash(value)
    except TypeError:
        return "object", id(value)
    return type(value), value
