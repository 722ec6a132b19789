"""Models by name: a model provider sets one up, rows share it, and it is torn down with the session.

`handles` defines what a provider is (`ModelProvider`) and what it returns (`ModelHandle`). `registry` finds
providers by name, `shared_models` sets equal models up once in a worker process, and `fixtures` offers them to
evaluations as the fixture `model_providers`.

Three providers are built in: ``openai`` for models behind an API, ``transformers`` for pipelines in the process,
and ``server`` for a model server that all processes of a machine share. May import `doteval.clients` and what is
below it. The modules are imported on first use, since the `openai` package alone takes a good part of a second.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doteval.providers.handles import ModelHandle, ModelProvider

__all__ = ["ModelHandle", "ModelProvider"]

if not TYPE_CHECKING:

    def __getattr__(name):
        if name in __all__:
            from doteval.providers import handles

            return getattr(handles, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted(__all__)
