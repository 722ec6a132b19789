"""How many times each fault is tried, each time at another moment."""

import os

# The nightly run uses more.
FAULT_SEEDS = range(int(os.environ.get("DOTEVAL_FAULT_SEEDS", "2")))
