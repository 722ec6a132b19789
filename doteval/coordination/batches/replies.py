"""Turns what a batch says of a request into a reply for its row, or into the reason to ask again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from doteval.clients.bad_replies import fault_of_reply
from doteval.clients.batch_clients import BatchClient
from doteval.clients.usage_recording import usage_of_reply
from doteval.coordination.batches.provider import LineReply
from doteval.core import lenient_json
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
        self._identity = client.identity

    def reply(self, line: LineReply, endpoint: str) -> BatchReply | str:
        """The reply to give to the row, or why the request is to be asked again."""
        status, content, counts = line.status, line.content, None
        if 200 <= status < 300:
            value = lenient_json.loads(content)
            fault = fault_of_reply(value, endpoint)
            if fault is None:
                counts = usage_of_reply(value) or {}
            else:
                status, content = fault.status, fault.content
        if status == 0 or status in _MAY_PASS or status >= 500:
            said = self._identity.hidden_in_text(line.message)
            return said or f"it was answered with the status {status}"
        reply = BatchReply(line.wanted_id, status, self._identity.hidden_in(content))
        if counts is None:
            return reply
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
