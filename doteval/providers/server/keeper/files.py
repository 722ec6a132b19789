"""The names of the files in a server's directory, as the keeper and the users of the server know them."""

from __future__ import annotations

LOCK = "lock"
SOCKET = "keeper.sock"
STATUS = "status.json"
# What the server printed, and what the keeper itself printed, which is a traceback if anything.
OUTPUT = "output.log"
ERRORS = "keeper.log"
