"""What a model provider is, and what it gives."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from doteval.errors import ResourceError


class ModelManager(Protocol):
    """Ends what it has set up."""

    async def teardown(self, resource_id: str) -> None:
        """Free what the model holds."""
        ...


class ModelProvider(Protocol):
    """Sets models up. Met structurally; a class may also inherit from it."""

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        """A model, ready to use. `spec` names it; what `config` holds is the provider's to say.

        Raises ResourceError if it cannot be set up.
        """
        ...


class ModelHandle:
    """A model that was set up: ``handle.model`` is what evaluations use.

    `resource_id` tells it from others of its manager, which is asked to end it.
    """

    def __init__(self, resource_id: str, model: Any, manager: ModelManager) -> None:
        self.resource_id = resource_id
        self.manager = manager
        self._model = model
        self._ended = False
        self._ending = asyncio.Lock()

    @property
    def model(self) -> Any:
        """What evaluations use. Raises ResourceError after `teardown`."""
        if self._ended:
            raise ResourceError(
                f"the model {self.resource_id} has been torn down",
                remedy="Tear it down after the rows that use it: in its fixture, behind the yield.",
            )
        return self._model

    async def teardown(self) -> None:
        """Give the model back. It happens once, however often this is called; all callers wait for it.

        Raises what the manager raises, to the first caller.
        """
        async with self._ending:
            if self._ended:
                return
            self._ended = True
            try:
                await self.manager.teardown(self.resource_id)
            finally:
                # The memory of a model is free when nobody knows it any more.
                self._model = None

    def get_stats(self) -> Any:
        """What the model's `get_stats()` says, an empty dict if it has none or is torn down."""
        get_stats = getattr(self._model, "get_stats", None)
        return get_stats() if callable(get_stats) else {}

    def __repr__(self) -> str:
        return f"ModelHandle({self.resource_id!r})"
