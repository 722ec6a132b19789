"""Packs the request and the reply of a call into few bytes, and unpacks them.

Both are compressed as one text, since replies often repeat what was asked, with a dictionary of what the JSON of model
APIs has in common. For calls of a few hundred bytes that halves what `zlib.compress` makes of them.

A conversation sends its whole history with each call. Such a request is packed without the bytes that it begins with as
the one before does, so that 30 turns take a sixth.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import orjson

from doteval.core.fast_dataclass import row_value

# Stored calls can only be read with the dictionary that packed them: a change needs another number in `_FORMAT`.
_FORMAT = b"\x01"
# The same behind a header: the digest of the base, the length of what is left out, and a checksum of the whole request.
_BASED = b"\x02"
_BASE = struct.Struct(">16sII")
# Less is not worth the header.
_SHORTEST_PREFIX = 256
# A request that cannot be restored takes those with it that are based on it.
_LONGEST_CHAIN = 16
_DICTIONARY = (
    b'["/embeddings","application/json; charset=utf-8","",["/responses","text/event-stream; charset=utf-8","",'
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.01,-0.0'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":1,"item_id":"msg_'
    b'{"id":"resp_","object":"response","created_at":17,"status":"completed","error":null,"incomplete_details":null,'
    b'"output":[{"id":"msg_","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text",'
    b'"annotations":[],"text":""}]}],"usage":{"input_tokens":1,"input_tokens_details":{"cached_tokens":0},'
    b'"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":3}}'
    b'data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"gpt-","system_fingerprint":null,'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
    b"data: [DONE]\n\n"
    b'{"id":"chatcmpl-","object":"chat.completion","created":17,"model":"gpt-","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":null,"refusal":null,"annotations":[],"tool_calls":[{"id":"call_","type":"function",'
    b'"function":{"name":"","arguments":"{\\"'
    b'"},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2,'
    b'"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
    b'{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},'
    b'"service_tier":"default","system_fingerprint":"fp_"}'
    b'["/chat/completions","application/json","",'
    b'{"model":"gpt-","temperature":0,"seed":1,"max_tokens":100,"stream":true,"tools":[{"type":"function","function":'
    b'{"name":"","description":"","parameters":{"type":"object","properties":{"'
    b'"}]},{"role":"tool","tool_call_id":"call_","content":"'
    b'{"messages":[{"role":"system","content":"You are a helpful assistant. Answer the question of the user."},'
    b'{"role":"user","content":"'
)
# The fastest level: others take twice the time, for 3 to 7% less. A compressor with zlib's largest window takes more
# than 128 KiB, which the allocator gets from the system for each copy; that takes longer than to compress a short call.
_COMPRESSOR = zlib.compressobj(1, zlib.DEFLATED, -14, 6, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)


@row_value
class CallBody:
    """What a call sent and got.

    endpoint: the end of the path, such as "/chat/completions".
    content_type: that of the reply.
    error: why there is no reply, else "".
    base: what the request lacks until `restored` has added it, None if it is whole.
    """

    endpoint: str
    content_type: str
    error: str
    request: bytes
    reply: bytes
    base: RequestBase | None = None


@row_value
class RequestBase:
    """A request of the same row that another one begins like.

    digest: that of its call. length: how many bytes both have in common. checksum: of the whole other one.
    """

    digest: bytes
    length: int
    checksum: int


class RequestChain:
    """Finds bases for the requests of a row, one after another.

    >>> chain, turn = RequestChain(), b"x" * 300
    >>> chain.base_of(b"digest of call 1", turn), chain.base_of(b"digest of call 2", turn + b"more").length
    (None, 300)
    """

    def __init__(self) -> None:
        self._digest = b""
        self._request = b""
        self._links = 0

    def base_of(self, digest: bytes, request: bytes) -> RequestBase | None:
        """The base of a request, None if it has none. It is the next one's then. digest: of its call, 16 bytes."""
        length = 0
        if self._links < _LONGEST_CHAIN and min(len(request), len(self._request)) >= _SHORTEST_PREFIX:
            length = _common(self._request, request)
        base = RequestBase(self._digest, length, zlib.crc32(request)) if length >= _SHORTEST_PREFIX else None
        self._links = 0 if base is None else self._links + 1
        self._digest, self._request = digest, request
        return base


def restored(calls: Sequence[tuple[bytes, CallBody]]) -> list[CallBody]:
    """The bodies of the calls of one row, with whole requests. calls: their digests and bodies, in any order.

    A request whose base is not there begins with "...".
    """
    by_digest: dict[bytes, list[CallBody]] = defaultdict(list)
    for digest, body in calls:
        by_digest[digest].append(body)
    return [body if body.base is None else _with_whole_request(body, by_digest) for _, body in calls]


def _with_whole_request(body: CallBody, by_digest: Mapping[bytes, Sequence[CallBody]]) -> CallBody:
    whole = _whole(body, by_digest, frozenset())
    request = b"..." + body.request if whole is None else whole
    return CallBody(body.endpoint, body.content_type, body.error, request, body.reply)


def _whole(body: CallBody, by_digest: Mapping[bytes, Sequence[CallBody]], seen: frozenset[int]) -> bytes | None:
    base = body.base
    if base is None:
        return body.request
    # A row may ask the same again later, so that two calls are each based on one like the other.
    for each in by_digest.get(base.digest, ()):
        found = None if id(each) in seen else _whole(each, by_digest, seen | {id(body)})
        if found is not None:
            whole = found[: base.length] + body.request
            if zlib.crc32(whole) == base.checksum:
                return whole
    return None


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def pack(body: CallBody, base: RequestBase | None = None) -> bytes:
    r"""The packed form of a body, without what its request has in common with `base`.

    >>> body = CallBody("/embeddings", "application/json", "", b'{"input": "x"}', b'{"data": []}')
    >>> unpack(pack(body)) == body
    True
    """
    request, begin = body.request, _FORMAT
    if base is not None:
        request = request[base.length :]
        begin = _BASED + _BASE.pack(base.digest, base.length, base.checksum)
    head = orjson.dumps([body.endpoint, body.content_type, body.error, len(request)])
    compressor = _COMPRESSOR.copy()
    parts = (begin, compressor.compress(head + b"\n"), compressor.compress(request))
    return b"".join((*parts, compressor.compress(body.reply), compressor.flush()))


def unpack(packed: bytes) -> CallBody:
    """The body of a packed form.

    Raises ValueError: it is none, or a newer doteval packed it.
    """
    if packed[:1] not in (_FORMAT, _BASED):
        raise ValueError("the body of a stored call has a form that this doteval does not know")
    try:
        base = RequestBase(*_BASE.unpack_from(packed, 1)) if packed[:1] == _BASED else None
        begin = 1 if base is None else 1 + _BASE.size
        content = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_DICTIONARY).decompress(packed[begin:])
    except (struct.error, zlib.error) as error:
        raise ValueError(f"the body of a stored call is damaged: {error}") from error
    head, _, bodies = content.partition(b"\n")
    endpoint, content_type, reason, size = orjson.loads(head)
    return CallBody(endpoint, content_type, reason, bodies[:size], bodies[size:], base)
