"""Packs the request and the reply of a call into few bytes, and unpacks them.

Both are compressed as one text, since replies often repeat what was asked, with a dictionary of what the JSON of model
APIs has in common. For calls of a few hundred bytes that halves what `zlib.compress` makes of them.
"""

from __future__ import annotations

import zlib

import orjson

from doteval.core.fast_dataclass import row_value

# Stored calls can only be read with the dictionary that packed them: a change needs another number in `_FORMAT`.
_FORMAT = b"\x01"
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
    """

    endpoint: str
    content_type: str
    error: str
    request: bytes
    reply: bytes


def pack(body: CallBody) -> bytes:
    r"""The packed form of a body.

    >>> body = CallBody("/embeddings", "application/json", "", b'{"input": "x"}', b'{"data": []}')
    >>> unpack(pack(body)) == body
    True
    """
    head = orjson.dumps([body.endpoint, body.content_type, body.error, len(body.request)])
    compressor = _COMPRESSOR.copy()
    parts = (_FORMAT, compressor.compress(head + b"\n"), compressor.compress(body.request))
    return b"".join((*parts, compressor.compress(body.reply), compressor.flush()))


def unpack(packed: bytes) -> CallBody:
    """The body of a packed form.

    Raises ValueError: it is none, or a newer doteval packed it.
    """
    if packed[:1] != _FORMAT:
        raise ValueError("the body of a stored call has a form that this doteval does not know")
    try:
        content = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_DICTIONARY).decompress(packed[1:])
    except zlib.error as error:
        raise ValueError(f"the body of a stored call is damaged: {error}") from error
    head, _, bodies = content.partition(b"\n")
    endpoint, content_type, reason, size = orjson.loads(head)
    return CallBody(endpoint, content_type, reason, bodies[:size], bodies[size:])
