"""Rows with four fixtures, one of them function-scoped."""

import os

from fixtures import bucket, client, loader, settings

from doteval import Score, foreach

__all__ = ["bucket", "client", "loader", "settings"]

ROWS = int(os.environ["ROWS"])


@foreach("number", ((number,) for number in range(ROWS)))
def eval_fixtures(number, settings, client, loader, bucket):
    bucket.append(number)
    return Score("ok", len(bucket) == 1, ["accuracy"])
