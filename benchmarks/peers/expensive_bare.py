"""Only the load and the rows of eval_expensive.py, in one process."""

import os
import time

ROWS = int(os.environ["ROWS"])
LOAD = float(os.environ["LOAD"])
CPU = float(os.environ["CPU"])

time.sleep(LOAD)
number = 0
for _ in range(ROWS):
    end = time.thread_time() + CPU
    while time.thread_time() < end:
        number += 1
