"""Pages of lists, with a cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from doteval.mock_openai.errors import RequestError, unsupported_value


def page(objects: Sequence[dict[str, Any]], query: Mapping[str, str], *, at_most: int, default: int) -> dict[str, Any]:
    """The part of a list, oldest first, that a query asks for by ``limit``, ``after`` and ``order``.

    >>> page([{"id": "a"}, {"id": "b"}], {"limit": "1"}, at_most=100, default=20)["data"]
    [{'id': 'b'}]

    Raises RequestError for a wrong limit or order, and for a cursor that is not in the list.
    """
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise unsupported_value("order", order, ("asc", "desc"))
    limit = query.get("limit", str(default))
    if not limit.isdecimal() or not 1 <= int(limit) <= at_most:
        raise RequestError(
            f"Invalid 'limit': expected an integer from 1 to {at_most}, but got '{limit}'.", param="limit"
        )
    ordered = list(objects) if order == "asc" else list(reversed(objects))
    start = 0
    if (after := query.get("after")) is not None:
        places = [place for place, one in enumerate(ordered) if one["id"] == after]
        if not places:
            raise RequestError(f"Invalid 'after': no object with id '{after}' found.", param="after")
        start = places[0] + 1
    data = ordered[start : start + int(limit)]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": start + len(data) < len(ordered),
    }
