"""Does a sentiment lexicon classify short product reviews as people do?

The model VADER is loaded once in every worker process and classifies the reviews in ``reviews.csv``.
"""

import pytest

from doteval import Result, foreach
from doteval.evaluators import exact_match


class Lexicon:
    """VADER with the thresholds that its authors recommend, which counts its calls."""

    def __init__(self):
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self.analyzer = SentimentIntensityAnalyzer()
        self.calls = 0

    def classify(self, text):
        self.calls += 1
        compound = self.analyzer.polarity_scores(text)["compound"]
        if compound >= 0.05:
            return "positive"
        return "negative" if compound <= -0.05 else "neutral"

    def get_stats(self):
        return {"calls": self.calls, "words": len(self.analyzer.lexicon)}


@pytest.fixture(scope="session")
def lexicon():
    return Lexicon()


@foreach("text,label", "reviews.csv")
def eval_lexicon(text, label, lexicon):
    answer = lexicon.classify(text)
    return Result(exact_match(answer, label), prompt=text, model_response=answer)
