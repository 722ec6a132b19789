"""A real embedding model whose weights come with its package: pip install wordllama (19 MB, no PyTorch)."""

import csv
from pathlib import Path

import pytest

from doteval.evaluators import embedding_similarity


@pytest.fixture(scope="session")
def model():
    # Where the package is missing, the evaluation is skipped and says why.
    wordllama = pytest.importorskip("wordllama", reason="needs `pip install wordllama`")
    # The package looks for its tokenizer in the wrong folder of its own (0.4.0), and would download it. As a cache its
    # folder is right.
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


class Search:
    """Finds the help article that is nearest to a question."""

    def __init__(self, model, articles):
        self.model = model
        self.titles = [article["title"] for article in articles]
        # Once in each worker process, not for each row.
        self.vectors = model.embed([article["text"] for article in articles], norm=True)

    def find(self, question):
        return self.titles[int((self.vectors @ self.model.embed([question], norm=True)[0]).argmax())]


@pytest.fixture(scope="session")
def articles():
    with (Path(__file__).parent / "articles.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def search(model, articles):
    return Search(model, articles)


@pytest.fixture(scope="session")
def similarity(model):
    return embedding_similarity(model.embed)
