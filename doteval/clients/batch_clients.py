"""The accounts whose requests this process can put into batches: base URLs and headers, with their keys.

They come from the requests that rows make, and stay in the memory of the process: the store must never hold a key. So
batches are sent by a worker process that has run a row of theirs; see `doteval.coordination.batches`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from doteval.clients.request_identity import RequestIdentity
from doteval.clients.steps import Request

# What identifies the account. Other headers are sent with batches, but may differ from request to request.
_ACCOUNT_HEADERS = ("authorization", "api-key", "openai-organization", "openai-project")
_OF_ONE_REQUEST = ("content-", "accept", "x-stainless-", "x-doteval-", "idempotency-")
_OF_THE_CONNECTION = frozenset({"host", "connection", "user-agent", "transfer-encoding", "cookie"})


@dataclass(frozen=True, slots=True)
class BatchClient:
    """An account at a provider. headers: those of its requests, with its key; never log or store them."""

    base_url: str
    headers: Mapping[str, str] = field(repr=False)

    @property
    def identity(self) -> RequestIdentity:
        """The identity that its requests share. It hides the secrets of the client in texts of the provider."""
        return RequestIdentity("POST", self.base_url, [(name.lower(), each) for name, each in self.headers.items()], ())


_known: dict[str, BatchClient] = {}
_names: dict[tuple[str, ...], str] = {}
_lock = threading.Lock()


def remember_client(evaluation: str, request: Request, endpoint: str) -> str:
    """Note the account of a request. Returns its name, which reveals nothing, and is the same in every process."""
    base_url = str(request.url).removesuffix(endpoint)
    given = {name.lower(): value for name, value in request.headers.items()}
    account = (evaluation, base_url, *(given.get(name, "") for name in _ACCOUNT_HEADERS))
    with _lock:
        name = _names.get(account)
        if name is None:
            key = hashlib.blake2b(evaluation.encode(), digest_size=32).digest()
            name = hashlib.blake2b(repr(account).encode(), key=key, digest_size=16).hexdigest()
            headers = {
                header: value
                for header, value in given.items()
                if header not in _OF_THE_CONNECTION and not header.startswith(_OF_ONE_REQUEST)
            }
            _known[name] = BatchClient(base_url, headers)
            _names[account] = name
        return name


def known_client(name: str) -> BatchClient | None:
    """The account with this name, None if no request of this process was for it."""
    return _known.get(name)
