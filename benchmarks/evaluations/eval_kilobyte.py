"""Rows of a kilobyte that do nothing. The subject writes `rows.jsonl` beside this file."""

from doteval import Score, foreach


@foreach("number,text", "rows.jsonl")
def eval_kilobyte(number, text):
    return Score("ok", len(text) > 1000, ["accuracy"])
