"""Replies of batches that cannot be read, are gone, or are failures with the status 200."""

from __future__ import annotations

import orjson
import pytest

from doteval.coordination.batches.provider import LineReply, ProviderError, UnreadableRepliesError
from tests.support.batch_world import REPLY, ROWS, World


@pytest.mark.parametrize("world", [{"batch_linger": 0.0}], indirect=True)
@pytest.mark.parametrize("returns", [True, False])
def test_replies_that_cannot_be_read_are_read_again_before_they_are_paid_again(world: World, returns: bool) -> None:
    world.park(0, 1, 2, 3)
    world.look()
    world.provider.end(line=lambda place, wanted_id: None if place else LineReply(wanted_id, 200, orjson.dumps(REPLY)))
    whole = {
        token: [LineReply(each, 200, orjson.dumps(REPLY)) for each in sent]
        for token, sent in world.provider.sent.items()
    }
    world.provider.unreadable = UnreadableRepliesError("3 lines of its replies cannot be read")
    for _ in range(4):
        world.look()
        assert len(world.recorded()) == 1, "what can be read is kept"
        assert "cannot be read" in str(world.store.batches.progress([world.evaluation.id]).errors)
    assert len(world.provider.sent) == 1
    if returns:
        world.provider.unreadable, world.provider.lines = None, whole
    world.look()
    assert len(world.recorded()) == (ROWS if returns else 1)
    assert [len(sent) for sent in world.provider.sent.values()] == ([ROWS] if returns else [ROWS, ROWS - 1])


@pytest.mark.parametrize("world", [{"batch_linger": 0.0, "max_retries": 1}], indirect=True)
@pytest.mark.parametrize("status", [404, 401])
def test_a_file_of_replies_that_is_gone_ends_its_batch(world: World, status: int) -> None:
    world.park(0, 1, 2, 3)
    world.look()
    world.provider.end()
    world.provider.unreadable = ProviderError(f"the provider refused: {status}", status=status, is_final=True)
    world.provider.lines.clear()
    world.look()
    # A key that is refused may be mended, and the replies are there.
    assert len(world.provider.sent) == (2 if status == 404 else 1)
    if status == 404:
        world.provider.end()
        world.provider.lines.clear()
        world.look()
        assert {calls[0][0] for calls in world.recorded().values()} == {504}
        assert "its reply is lost: the provider refused: 404" in world.error_of(0)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"null", None),
        (b'{"choices":null}', None),
        (b'{"error":{"message":"away","type":"server_error"}}', None),
        (b'{"error":{"message":"too long","type":"invalid_request_error"}}', 400),
    ],
)
@pytest.mark.parametrize("world", [{"batch_linger": 0.0}], indirect=True)
def test_failures_with_status_200_are_failures(world: World, body: bytes, status: int | None) -> None:
    """As those of live requests are."""
    world.park(0, 1, 2, 3)
    world.look()
    world.provider.end(line=lambda _, wanted_id: LineReply(wanted_id, 200, body))
    world.look()
    assert {calls[0][0] for calls in world.recorded().values()} == ({status} if status else set())
    assert len(world.provider.sent) == (1 if status else 2)
