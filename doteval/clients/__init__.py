"""API clients on pooled connections, with shared caching, rate limits, retries and usage recording.

Entry: `doteval.clients.openai` (`openai_client`, `async_openai_client`, `instrument`) and `doteval.clients.fast.chat`;
`fixtures` makes the clients pytest fixtures. `steps` defines the request steps that `cache`, `retries`, `rate_limits`
and `usage_recording` add around an HTTP client's `send`; `shared_state` holds what the clients of a process share.

Imports `doteval.core` and `doteval.errors` only. Nothing is imported here, because the `openai` package alone takes
a good part of a second to import.
"""

__all__ = ["fast", "openai"]


def __dir__() -> list[str]:
    return sorted(__all__)
