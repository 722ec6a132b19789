"""When a process counts as late, lost or dead: every limit of that kind, so that they agree.

A process that runs rows writes a heartbeat to the result store every `BEAT_SECONDS`, with the rows that it holds.
Others judge it by the age of the last one, on the store's clock. The limits depend on each other like this:

- `LATE_AFTER_SECONDS` is more than two beats, so that one late beat does not make a process late. It only makes others
  look whether a process of the same machine still exists, which costs nothing if the guess was wrong.
- `HELD_ROWS_FRESH_SECONDS` is no less than that. While one worker's report is older, nobody publishes rows again, since
  that worker may hold them.
- `QUEUE_DRAINED_SECONDS` is more than two beats: a worker process reports the row tasks that it took from the queue
  before their rows can count as lost.
- `OBSERVATION_GAP_SECONDS` is more than two of the dispatcher's looks, which are `DISPATCH_SECONDS` apart. After a
  longer gap, while the store or the broker was away, a queue must be seen drained anew.
- `QUEUE_UNSERVED_SECONDS` is less than `DEAD_AFTER_SECONDS`, and longer than a worker service takes to start: the user
  sees a note about a queue without workers.
- `DEAD_AFTER_SECONDS` is several times the freshness of a report. Rows of a dead process are published again; if it was
  only slow, they run twice, and the first result wins.
- A lease in the reply cache belongs to a process that renews it every `LEASE_RENEW_SECONDS`. `LEASE_SECONDS` allows
  three renewals to fail. It is short because other rows wait for the reply; if it was too short, one request is paid
  twice.

>>> BEAT_SECONDS < LATE_AFTER_SECONDS < DEAD_AFTER_SECONDS
True
"""

from __future__ import annotations

import os
from typing import Final

# Seconds between two heartbeats of a process that runs rows.
BEAT_SECONDS: Final = 1.0
# Seconds between two looks of a worker process at evaluations that need dispatching, in place of a submitter that left.
DISPATCH_SECONDS: Final = 2.0
# A process without a heartbeat for so long is late: on its own machine others check whether its pid still exists.
LATE_AFTER_SECONDS: Final = 2.5
# A worker's report of the rows it holds is trusted for so long.
HELD_ROWS_FRESH_SECONDS: Final = 3.0
# Rows that are pending and held by nobody are lost once their queue has been empty for so long.
QUEUE_DRAINED_SECONDS: Final = 3.0
# Two looks at a queue that are further apart say nothing about the time in between.
OBSERVATION_GAP_SECONDS: Final = 5.0
# A user who waits gets a note about a queue that no worker process has served for so long.
QUEUE_UNSERVED_SECONDS: Final = 10.0
# A process without a heartbeat for so long is dead.
DEAD_AFTER_SECONDS: Final = 15.0
# A lease of the reply cache runs out after so long, unless its holder renews it, which it does so often.
LEASE_SECONDS: Final = 4.0
LEASE_RENEW_SECONDS: Final = 1.0


def is_orphaned(parent: int | None) -> bool:
    """Whether this process has outlived the process `parent`, which started it; never for None.

    The kernel gives an orphan another parent, so no signal can be missed.

    >>> is_orphaned(os.getppid())
    False
    """
    return parent is not None and os.getppid() != parent
