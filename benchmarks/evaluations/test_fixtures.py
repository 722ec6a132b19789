"""The rows of `eval_fixtures` as items of pytest."""

import os

import pytest
from fixtures import bucket, client, loader, settings

__all__ = ["bucket", "client", "loader", "settings"]


@pytest.mark.parametrize("number", range(int(os.environ["ROWS"])))
def test_fixtures(number, settings, client, loader, bucket):
    bucket.append(number)
    assert len(bucket) == 1
