"""The interface of model providers, and the handle of a model that one has set up."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from doteval.errors import ResourceError


class ModelManager(Protocol):
    """Tears down the models that it has set up."""

    async def teardown(self, resource_id: str) -> None:
        """Free the resources of the model."""
        ...


class ModelProvider(Protocol):
    """Sets models up. Any class with this method is a provider; inheriting from this class is optional.

    >>> class Abacuses:
    ...     async def setup(self, spec, **config):
    ...         return ModelHandle(spec, [0] * config["wires"], self)
    ...
    ...     async def teardown(self, resource_id):
    ...         pass
    >>> provider: ModelProvider = Abacuses()
    >>> asyncio.run(provider.setup("small", wires=2)).model
    [0, 0]
    """

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        """Set up a model that is ready to use. `spec` names it; each provider documents its `config`.

        Raises ResourceError if the model cannot be set up.
        """
        ...


class ModelHandle:
    """A model that was set up: evaluations use ``handle.model``.

    `manager` tears the model down, which it knows by `resource_id`.

    >>> class Shelf:
    ...     async def teardown(self, resource_id):
    ...         print("put back", resource_id)
    >>> handle = ModelHandle("abacus", [1, 2, 3], Shelf())
    >>> handle.model
    [1, 2, 3]
    >>> asyncio.run(handle.teardown())
    put back abacus
    """

    def __init__(self, resource_id: str, model: Any, manager: ModelManager) -> None:
        self.resource_id = resource_id
        self.manager = manager
        self._model = model
        self._ended = False
        self._ending = asyncio.Lock()

    @property
    def model(self) -> Any:
        """The model. Raises ResourceError after `teardown`."""
        if self._ended:
            raise ResourceError(
                f"the model {self.resource_id} has been torn down",
                remedy="Tear it down after the rows that use it: in its fixture, after the yield.",
            )
        return self._model

    async def teardown(self) -> None:
        """Tear the model down. Only the first call does it; all callers wait until it is done.

        Raises what the manager raises, in the first call.
        """
        async with self._ending:
            if self._ended:
                return
            self._ended = True
            try:
                await self.manager.teardown(self.resource_id)
            finally:
                # The memory of a model is freed when the last reference to it is gone.
                self._model = None

    def get_stats(self) -> Any:
        """The result of the model's `get_stats()`; an empty dict if it has no such method or is torn down."""
        get_stats = getattr(self._model, "get_stats", None)
        return get_stats() if callable(get_stats) else {}

    def __repr__(self) -> str:
        return f"ModelHandle({self.resource_id!r})"
