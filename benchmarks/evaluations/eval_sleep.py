"""Rows that wait for 0.1 s."""

import asyncio
import os

from doteval import Score, foreach

ROWS = int(os.environ["ROWS"])


@foreach("number", ((number,) for number in range(ROWS)))
async def eval_sleep(number):
    await asyncio.sleep(0.1)
    return Score("ok", number >= 0, ["accuracy"])
