"""A small server with OpenAI's HTTP API, for tests, benchmarks and first steps: it needs no key and costs nothing.

Entry: `MockOpenAI` runs the server in its own process for the time of a ``with`` block;
``python -m doteval.mock_openai --port 8000 --latency 0.1`` serves until it is stopped.

A reply depends on the request alone, tokens are counted as words, and on request the server is slow, rate limited or
broken (`faults`). `server` is the HTTP side; each endpoint has a module: `chat`, `responses`, `embeddings`, `models`,
`files` and `batches`.

Imports `doteval.core` and `doteval.errors` only.
"""

from doteval.mock_openai.process import MockOpenAI
from doteval.mock_openai.settings import MockSettings

__all__ = ["MockOpenAI", "MockSettings"]


def __dir__() -> list[str]:
    return sorted(__all__)
