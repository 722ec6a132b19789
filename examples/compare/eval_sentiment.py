"""Which of two models classifies reviews better? Each parameter is an evaluation of its own, on the same rows."""

import pytest

from doteval import Result, foreach
from doteval.evaluators import exact_match


class WordList:
    """The baseline: some words."""

    GOOD = frozenset(["love", "great", "excellent", "perfect", "amazing", "happy", "best", "brilliant", "good"])
    BAD = frozenset(["broke", "terrible", "worst", "awful", "hate", "waste", "useless", "angry", "slow"])

    def classify(self, text):
        words = {word.strip(".,!?").lower() for word in text.split()}
        balance = len(words & self.GOOD) - len(words & self.BAD)
        return "positive" if balance > 0 else "negative" if balance < 0 else "neutral"


class Vader:
    """A lexicon of 7,500 words with rules for negation, and the thresholds that its authors recommend."""

    def __init__(self):
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self.analyzer = SentimentIntensityAnalyzer()

    def classify(self, text):
        compound = self.analyzer.polarity_scores(text)["compound"]
        return "positive" if compound >= 0.05 else "negative" if compound <= -0.05 else "neutral"


MODELS = {"words": WordList, "vader": Vader}


@pytest.fixture(scope="session")
def model(request):
    # A worker process loads a model once, when the first row needs it.
    return MODELS[request.param]()


@pytest.mark.parametrize("model", MODELS, indirect=True)
@foreach("text,label", "../demo/reviews.csv")
def eval_sentiment(text, label, model):
    answer = model.classify(text)
    return Result(exact_match(answer, label), prompt=text, model_response=answer)
