"""A small server that speaks OpenAI's HTTP API, for tests, benchmarks and the demo: no key, no network, no cost.

``python -m doteval.mock_openai --port 8000 --latency 0.1`` serves until it is stopped;
`MockOpenAI` is the same server for the time of a ``with`` block, in a process of its own.

Replies follow from the request alone (`replies`), tokens are counted as words, and on request the
server is slow, rate limited or broken (`faults`).
"""

from doteval.mock_openai.process import MockOpenAI
from doteval.mock_openai.settings import MockSettings

__all__ = ["MockOpenAI", "MockSettings"]
