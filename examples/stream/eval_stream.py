"""A million rows that are never in memory together: not where they are made, and not in a worker process."""

import resource
import sys

import pytest

from doteval import Result, foreach
from doteval.evaluators import exact_match

ROWS = 1_000_000


def rows():
    # Read a file, a database or an API here. Rows are stored in groups before the next ones are made.
    for number in range(ROWS):
        yield {"question": f"{number} + 1", "answer": number + 1}


class Adder:
    def add(self, question):
        first, second = question.split(" + ")
        return int(first) + int(second)

    def get_stats(self):
        # Linux counts kilobytes, macOS bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {"megabytes at most": peak // 2**20}


@pytest.fixture(scope="session")
def adder():
    return Adder()


# The function, not what it returns: it is called when the evaluation begins, and not where files are only collected.
@foreach("question,answer", rows)
def eval_stream(question, answer, adder):
    return Result(exact_match(adder.add(question), answer))
