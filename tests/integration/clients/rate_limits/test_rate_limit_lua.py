"""The rate limit in Lua does what the one in Python does, step by step."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doteval.clients.rate_limits.rate_limit import RateLimit
from doteval.clients.rate_limits.redis import RedisRateLimits
from doteval.errors import ResourceError

part = st.floats(0, 1).map(lambda share: round(share, 3))
left = st.builds(
    lambda limit, used, reset, stamp, age: [limit, round(limit * (1 - used), 2), reset, stamp, age],
    st.sampled_from([1, 10, 500]),
    part,
    st.floats(0, 60).map(lambda seconds: round(seconds, 3)),
    st.integers(-1, 50),
    part,
)
message = st.fixed_dictionaries(
    {
        "user_rates": st.tuples(st.sampled_from([0, 5.5]), st.sampled_from([0, 100.25])).map(list),
        "asks": st.lists(
            st.tuples(st.sampled_from(["one", "two", ""]), st.integers(1, 40), st.integers(0, 900)).map(list),
            max_size=3,
            unique_by=lambda ask: ask[0],
        ),
    },
    optional={
        "ok": st.integers(0, 30),
        "tokens": st.integers(-50, 50),
        "left": left,
        "tokens_left": left,
        "rejected": st.tuples(st.sampled_from([-1, 0.25, 500]), st.integers(-1, 50), st.sampled_from([0, 1])).map(list),
    },
)
steps = st.lists(st.tuples(st.floats(0, 3).map(lambda seconds: round(seconds, 3)), message), max_size=15)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_lua_and_python_agree(redis_url: str, steps: list[tuple[float, dict[str, Any]]]) -> None:
    in_redis, in_python, now = RedisRateLimits(redis_url), RateLimit(), 1_700_000_000.0
    key = uuid4().hex
    for passed, sent in steps:
        now += passed
        in_redis.now = f"{now:.3f}"
        (answer,) = in_redis.step([(key, sent)])
        expected = in_python.step(round(now, 3), sent)
        assert answer["grants"] == expected["grants"]
        assert answer["limited"] == expected["limited"]
        for name in ("wait", "sent", "tokens_sent"):
            assert answer[name] == pytest.approx(expected[name], abs=1e-6)


def test_an_unreachable_redis_raises_without_the_password() -> None:
    with pytest.raises(ResourceError, match="cannot be used") as raised:
        RedisRateLimits("redis://:hunter2@127.0.0.1:1/0").step([("k", {"user_rates": [0, 0], "asks": []})])
    assert "hunter2" not in str(raised.value)
