"""Rows of a kilobyte that do nothing."""

import os

from doteval import Score, foreach

ROWS = int(os.environ["ROWS"])


@foreach("number,text", ((number, f"{number:010} " + "lorem ipsum " * 84) for number in range(ROWS)))
def eval_kilobyte(number, text):
    return Score("ok", len(text) > 1000, ["accuracy"])
