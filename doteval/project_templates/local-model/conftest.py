"""What all evaluations of this folder share."""

import pytest


class WordModel:
    """Stands for your model, which takes long to load and much memory."""

    def __init__(self):
        self.good = {"great", "lovely", "friendly", "good", "again"}
        self.bad = {"broke", "terrible", "awful", "bad", "nobody"}
        self.calls = 0

    def classify(self, text):
        self.calls += 1
        words = {word.strip(".,!?").lower() for word in text.split()}
        balance = len(words & self.good) - len(words & self.bad)
        if balance == 0:
            return "neutral"
        return "positive" if balance > 0 else "negative"

    def get_stats(self):
        # `doteval usage` shows what this returns, for each worker process.
        return {"calls": self.calls}


@pytest.fixture(scope="session")
def model():
    # Each worker process loads the model once, whatever the number of rows. Load yours here, as with
    # transformers.pipeline("text-classification", ...).
    return WordModel()
