"""The soak of `make soak`, for a short time: random faults, one after another, while a large evaluation runs.

DOTEVAL_SOAK_MINUTES and DOTEVAL_SOAK_SEED make it longer, and another one.
"""

from __future__ import annotations

import os

from tests.faults.soak import soak

MINUTES = float(os.environ.get("DOTEVAL_SOAK_MINUTES", "0.5"))
# With this seed, the first faults restart PostgreSQL, kill a worker process, fail PostgreSQL over and silence it.
SEED = int(os.environ.get("DOTEVAL_SOAK_SEED", "8"))


def test_every_invariant_holds_under_random_faults() -> None:
    print(f"to have this one again: make soak MINUTES={MINUTES:g} SEED={SEED}")
    assert soak(MINUTES, SEED)
