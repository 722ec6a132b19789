"""The names of the files in a server's directory, as the keeper and the users of the server know them."""

from __future__ import annotations

LOCK = "lock"
SOCKET = "keeper.sock"
STATUS = "status.json"
# The output of the server, and the traceback of a keeper that fails.
OUTPUT = "output.log"
ERRORS = "keeper.log"
