"""Model providers by name: built in, registered in this process, or announced by an installed package."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from doteval.core.error_leaves import for_logs, in_one_line
from doteval.core.plugins import Plugins
from doteval.errors import UsageError
from doteval.providers.handles import ModelProvider

__all__ = ["available", "model_provider", "register"]

plugins = Plugins("doteval.model_providers", "model provider")


def register(name: str, provider: ModelProvider | Callable[[], ModelProvider]) -> None:
    """Give a provider a name in this process. A class or a function is called when the name is first used.

    >>> class Abacuses(ModelProvider):
    ...     async def setup(self, spec, **config):
    ...         raise NotImplementedError
    >>> register("abacuses", Abacuses)
    >>> "abacuses" in available()
    True
    """
    plugins.register(name, provider)


def available() -> tuple[str, ...]:
    """The names of all model providers. Imports nothing.

    >>> "openai" in available()
    True
    """
    return plugins.names()


def model_provider(name: str) -> ModelProvider:
    """The provider with that name. A class or function makes a new provider each time.

    Raises NotFoundError, which suggests similar names, if there is none; UsageError if it cannot be loaded or is not a
    model provider.

    >>> type(model_provider("server")).__name__
    'ServerProvider'
    """
    found = plugins.get(name)
    provider: Any = found
    if isinstance(found, type) or (callable(found) and not hasattr(found, "setup")):
        try:
            provider = found()
        except Exception as error:
            raise UsageError(
                f"the model provider {name!r} cannot be made: {in_one_line(error)}",
                remedy="It has to be a model provider, or a class or function without arguments that returns one.",
                logged=f"the model provider {name!r} cannot be made: {for_logs(error)}",
            ) from error
    if not callable(getattr(provider, "setup", None)):
        raise UsageError(
            f"the model provider {name!r} is not one: {type(provider).__name__} has no setup()",
            remedy="It needs a method: async def setup(self, spec, **config), which returns a ModelHandle.",
        )
    made: ModelProvider = provider
    return made


def _built_in(module: str, name: str) -> Callable[[], ModelProvider]:
    def make() -> ModelProvider:
        provider: ModelProvider = getattr(import_module(module), name)()
        return provider

    return make


register("openai", _built_in("doteval.providers.openai", "OpenAIProvider"))
register("transformers", _built_in("doteval.providers.transformers", "TransformersProvider"))
register("server", _built_in("doteval.providers.server.provider", "ServerProvider"))
