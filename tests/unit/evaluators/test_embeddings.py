"""Similarity by embeddings: cosines of what any kind of embedder returns."""

from __future__ import annotations

import asyncio
import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import openai
import pytest
from scipy.spatial.distance import cosine

from doteval.clients.openai import async_openai_client, openai_client
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators import embedding_similarity
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import settings

VECTORS = {"one": [1.0, 0.0], "two": [3.0, 4.0], "minus": [-2.0, 0.0], "zero": [0.0, 0.0], "odd": [math.nan, 1.0]}


def lookup(texts: list[str]) -> Any:
    return [VECTORS[text] for text in texts]


@pytest.mark.parametrize(("response", "references", "value"), [("one", "two", 0.6), ("one", ["minus", "two"], 0.6)])
def test_the_nearest_reference_counts(response: str, references: Any, value: float) -> None:
    score = embedding_similarity(lookup)(response, references)
    assert score.value == pytest.approx(value)
    assert (score.name, score.metric_names) == ("embedding_similarity", ("mean",))
    # What was judged, as every evaluator notes it, and no package.
    assert dict(score.metadata) == {"response": response, "references": references}
    assert embedding_similarity(lookup)("one", "minus", name="alike").value == -1.0


def test_a_local_model_is_named_with_its_version() -> None:
    model = SimpleNamespace(encode=lambda texts: np.array(lookup(texts), dtype=np.float32))
    assert embedding_similarity(model)("one", "two").value == pytest.approx(0.6)

    class OfAPackage(np.ndarray):
        def encode(self, texts: list[str]) -> Any:
            return lookup(texts)

    model = np.zeros(1).view(OfAPackage)
    assert embedding_similarity(model)("one", "two").metadata["package"] == f"numpy {np.__version__}"


def test_clients_are_asked_once_a_row_and_awaited_if_they_are_async(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    score = embedding_similarity(client, "e")("a text", "another text")
    assert (score.metadata["package"], score.metadata["model"]) == (f"openai {openai.__version__}", "e")
    assert mock_openai.stats()["requests"] == 1
    found = client.embeddings.create(model="e", input=["a text", "another text"]).data
    assert score.value == pytest.approx(1 - cosine(found[0].embedding, found[1].embedding))

    async def judged() -> Any:
        later = embedding_similarity(async_openai_client(**settings(mock_openai)), "e")("a text", "another text")
        assert inspect.isawaitable(later)
        return await later

    assert asyncio.run(judged()).value == pytest.approx(score.value)


@pytest.mark.parametrize(
    ("embedder", "response", "references", "says"),
    [
        (lookup, None, "one", "no text"),
        (lookup, "one", ["one", 3], "no text"),
        (lookup, "one", [], "no references"),
        (lookup, "one", "zero", "no direction"),
        (lookup, "odd", "one", "no direction"),
        (lambda _: [[1.0]], "one", "two", "1 vector for 2 texts"),
        (lambda _: [[1.0], [1.0, 2.0]], "one", "two", "cannot be compared"),
        (lambda texts: texts, "one", "two", "no vectors"),
        (lambda _: None, "one", "two", "no vectors"),
        (lambda _: [], "one", "two", "no vectors"),
    ],
)
def test_what_has_no_direction_fails_the_row(embedder: Any, response: Any, references: Any, says: str) -> None:
    with pytest.raises(InvalidResultError, match=says):
        embedding_similarity(embedder)(response, references)


def test_an_embedder_that_cannot_be_used_is_an_error(mock_openai: MockOpenAI) -> None:
    with pytest.raises(UsageError, match="name of a model"):
        embedding_similarity(openai_client(**settings(mock_openai)))
    with pytest.raises(UsageError, match="makes no vectors"):
        embedding_similarity(3)
