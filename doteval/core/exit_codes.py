"""Exit codes of commands and worker processes for ends that are not a `DotEvalError`.

Errors name their own in `doteval.errors`: `WorkerError`, for example, is 5 if no worker process of a submission can
start.
"""

from __future__ import annotations

# EX_SOFTWARE of sysexits.h: an error that doteval did not expect; of a worker process also a fixture that does not end.
UNEXPECTED = 70
# EX_IOERR of sysexits.h: standard output cannot be written.
OUTPUT_FAILED = 74
# EX_TEMPFAIL of sysexits.h: a worker process that makes room for a fresh one.
RECYCLED = 75
# What a shell reports of a program that wrote into a closed pipe.
OUTPUT_CLOSED = 141
