"""What an endpoint of models is asked and replies, without HTTP; `chat`, `responses` and `embeddings` are such."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from doteval.mock_openai.errors import RequestError
from doteval.mock_openai.faults import Effects
from doteval.mock_openai.json_values import fitting_value
from doteval.mock_openai.prompts import Prompt, Tokens
from doteval.mock_openai.texts import reply_text

# A fixed date: replies to the same request are the same but for their ids.
CREATED = 1700000000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a model. `rule` is that of `MockSettings.reply`, `serial` makes its ids unique."""

    body: Mapping[str, Any]
    prompt: Prompt
    key: bytes
    effects: Effects
    rule: str
    serial: int | str

    def text(self, form: object = None) -> str:
        """The text of the reply. `form` is the response format that was asked for: an object with a ``type``.

        Raises RequestError if the format has no schema.
        """
        if self.effects.reply is not None:
            return self.effects.reply
        kind = form.get("type") if isinstance(form, Mapping) else None
        if kind not in ("json_object", "json_schema"):
            return reply_text(self.rule, self.prompt)
        if kind == "json_object":
            return orjson.dumps({"reply": reply_text(self.rule, self.prompt)}).decode()
        assert isinstance(form, Mapping)
        schema = form.get("json_schema", form).get("schema")
        if not isinstance(schema, Mapping):
            raise RequestError(
                "Missing required parameter: 'response_format.json_schema.schema'.",
                param="response_format.json_schema.schema",
                code="missing_required_parameter",
            )
        return orjson.dumps(fitting_value(schema, self.key)).decode()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its body, its usage, and the events of a stream if one was asked for.

    `reported`: whether the client sees the usage.
    """

    payload: dict[str, Any]
    tokens: Tokens
    events: Iterator[bytes] | None = None
    reported: bool = True


@dataclass(frozen=True, slots=True)
class ModelEndpoint:
    """An endpoint of models.

    `kind`: its name in the counters and in faults. `field`: the part of a request that holds the prompt.
    `error_event`: the event by which a stream reports an error, given the number of events before it.
    """

    kind: str
    field: str
    answer: Callable[[Asked], Reply]
    error_event: Callable[[int], bytes]

    def reply(self, asked: Asked) -> Reply:
        """The reply to a request. Raises RequestError for one that is wrong.

        A request has more parameters than are checked one by one; the others must not end a batch, or be a 500.
        """
        try:
            return self.answer(asked)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"Invalid type for a parameter: {error}", code="invalid_type") from error
