"""A model that takes long to load, and whose rows keep the processor busy."""

import os
import time

import pytest

from doteval import Score, foreach

ROWS = int(os.environ["ROWS"])
LOAD = float(os.environ["LOAD"])
CPU = float(os.environ["CPU"])


@pytest.fixture(scope="session")
def model():
    time.sleep(LOAD)

    def ask(number):
        end = time.thread_time() + CPU
        while time.thread_time() < end:
            number += 1
        return number

    return ask


@foreach("number", ((number,) for number in range(ROWS)))
def eval_expensive(number, model):
    return Score("ok", model(number) > 0, ["accuracy"])
