"""The soak of `make soak`, for a short time: one random fault after the other while a large evaluation goes on.

DOTEVAL_SOAK_MINUTES and DOTEVAL_SOAK_SEED make it longer, and another one.
"""

from __future__ import annotations

import os

from tests.faults.soak import soak

MINUTES = float(os.environ.get("DOTEVAL_SOAK_MINUTES", "0.5"))
# It begins with worker processes that are killed and paused, and PostgreSQL that is restarted.
SEED = int(os.environ.get("DOTEVAL_SOAK_SEED", "2"))


def test_every_invariant_holds_whatever_breaks() -> None:
    print(f"to have this one again: make soak MINUTES={MINUTES:g} SEED={SEED}")
    assert soak(MINUTES, SEED)
