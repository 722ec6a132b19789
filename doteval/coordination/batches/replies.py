"""Turns what a batch says of a request into a reply for its row, or into the reason to ask again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from doteval.clients.batch_clients import BatchClient
from doteval.clients.request_identity import RequestIdentity
from doteval.clients.usage_recording import usage_of_reply
from doteval.coordination.batches.provider import LineReply
from doteval.core.prices import PriceTable
from doteval.core.results import Usage
from doteval.store import BatchReply

_MAY_PASS = frozenset({408, 409, 425, 429})
_NO_REPLY = 504


class ReplyReader:
    """Reads the replies of batches of one client and model."""

    def __init__(self, client: BatchClient, model: str, prices: PriceTable) -> None:
        self._model = model
        self._prices = prices
        self._url = client.base_url
        headers = [(name.lower(), value) for name, value in client.headers.items()]
        self._identity = RequestIdentity("POST", client.base_url, headers, ())

    def reply(self, line: LineReply) -> BatchReply | None:
        """The reply to give to the row; None if the request is to be asked again."""
        if line.status == 0 or line.status in _MAY_PASS or line.status >= 500:
            return None
        reply = BatchReply(line.wanted_id, line.status, self._identity.hidden_in(line.content))
        if line.status >= 400:
            return reply
        counts = usage_of_reply(orjson.loads(line.content)) or {}
        cost = self._cost(counts) if counts else None
        used = Usage(self._model, requests=1, attempts=1, cost=cost, batch_cost=cost, batch=True)
        return replace(reply, usage=_with(used, counts))

    def _cost(self, counts: dict[str, int]) -> float | None:
        return self._prices.cost(
            self._model,
            prompt_tokens=counts["prompt_tokens"],
            completion_tokens=counts["completion_tokens"],
            cached_tokens=counts["cached_tokens"],
            url=self._url,
            batch=True,
        )

    def refusal(self, wanted_id: int, message: str, *, status: int = 0, content: bytes = b"") -> BatchReply:
        """The reply that tells a row that its request is not asked again."""
        error = {"message": f"batch mode: {message}", "type": "batch_mode", "code": "not_answered", "param": None}
        said = content or orjson.dumps({"error": error})
        return BatchReply(wanted_id, status or _NO_REPLY, self._identity.hidden_in(said), error=message)


def _with(usage: Usage, counts: dict[str, int]) -> Usage:
    values: dict[str, Any] = dict(counts)
    return replace(usage, **values)
