"""Which tests `make test` leaves out: tests/conftest.py sets the marks, tests/unit/test_suite.py checks them."""

from __future__ import annotations

import pytest

# The marks of tests that `make test` leaves out; the Makefile has the same.
LEFT_OUT = {"faults", "browser", "variant", "slow"}

ItemsByTest = dict[str, list[pytest.Item]]
# All cases of each collected test, before pytest selects any by -m or -k.
COLLECTED = pytest.StashKey[ItemsByTest]()
