"""Rows that do nothing. One in ten fails as long as the file `broken` exists."""

import os
from pathlib import Path

from doteval import Score, foreach

ROWS = int(os.environ["ROWS"])
BROKEN = Path("broken")


@foreach("number", ((number,) for number in range(ROWS)))
def eval_flaky(number):
    if number % 10 == 0 and BROKEN.exists():
        raise ValueError("broken")
    return Score("ok", True, ["accuracy"])
