"""The evaluator `embedding_similarity` compares texts by the vectors that a model makes of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

from doteval.core.results import Score
from doteval.core.wording import counted
from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators.decorator import evaluator
from doteval.evaluators.judge import after
from doteval.evaluators.reference_texts import checked_references
from doteval.metrics import mean


def embedding_similarity(embedder: Any, model: str | None = None, *, metrics: Any = None) -> Callable[..., Any]:
    """Make an evaluator that returns the cosine of the angle between the vectors of a response and of a reference.

    `embedder` makes the vectors: a client with the method ``embeddings.create(model=, input=)`` of the OpenAI package,
    for which `model` is needed; a local model with the method ``encode(texts)``, as sentence-transformers has them; or
    a function that takes a list of texts and returns a vector for each. With an async client or function the evaluator
    must be awaited. Make it once, in a fixture::

        @pytest.fixture(scope="session")
        def similarity(openai_client):
            return embedding_similarity(openai_client, "text-embedding-3-small")

        score = similarity(response, "the expected text")

    The value lies between -1 and 1, and 1 means the same direction. Of several references the nearest one counts. The
    metadata of the score name the model, and the package of the embedder with its version. `metrics` is as for
    `evaluator`, by default the mean.

    >>> similarity = embedding_similarity(lambda texts: [[text.count("a"), text.count("b")] for text in texts])
    >>> round(similarity("aab", "aaaabb").value, 3), round(similarity("aa", ["b", "ab"]).value, 3)
    (1.0, 0.707)

    The evaluator raises InvalidResultError, so that the row fails, if something is no text or has no direction, and
    raises what the embedder raises.

    Raises UsageError if the embedder is none of these, or a client comes without a model.
    """
    embed, described = _embed_function(embedder, model)

    @evaluator(metrics=mean() if metrics is None else metrics)
    def embedding_similarity(response: str, references: str | Sequence[str]) -> Any:
        texts = checked_references(response, references)

        def score(vectors: Any) -> Score:
            return Score("embedding_similarity", _nearest(vectors, 1 + len(texts)), (), described)

        return after(embed([response, *texts]), score)

    made: Callable[..., Any] = embedding_similarity
    return made


def _embed_function(embedder: Any, model: str | None) -> tuple[Callable[[list[str]], Any], dict[str, str]]:
    """The function that makes vectors, awaitable if the embedder is async, and what the metadata say of it."""
    described = _package_of(embedder) | ({} if model is None else {"model": model})
    if hasattr(embedder, "embeddings"):
        if model is None:
            raise UsageError(
                "embedding_similarity needs the name of a model for this client",
                remedy='Name it: embedding_similarity(client, "text-embedding-3-small").',
            )

        def ask(texts: list[str]) -> Any:
            # By default the SDK asks for base64, which not all servers know.
            reply = embedder.embeddings.create(model=model, input=texts, encoding_format="float")
            return after(reply, lambda found: [each.embedding for each in sorted(found.data, key=_index)])

        return ask, described
    encode = getattr(embedder, "encode", embedder)
    if not callable(encode):
        raise UsageError(
            f"{type(embedder).__name__} makes no vectors of texts",
            remedy="Give a client with embeddings.create, a model with encode, or a function of a list of texts.",
        )
    return encode, described


def _index(embedding: Any) -> int:
    return int(embedding.index)


def _package_of(embedder: Any) -> dict[str, str]:
    """The package that the embedder comes from, with its version; empty for functions of the author's own."""
    for kind in type(embedder).__mro__:
        name = kind.__module__.partition(".")[0]
        if name == "doteval":
            # Its clients are those of the openai package.
            continue
        try:
            return {"package": f"{name} {importlib.metadata.version(name)}"}
        except importlib.metadata.PackageNotFoundError:
            continue
    return {}


def _nearest(vectors: Any, wanted: int) -> float:
    """The largest cosine between the first vector and one of the others."""
    # Imported here, since it takes a tenth of a second.
    import numpy

    try:
        first, *others = (numpy.asarray(vector, dtype=float) for vector in vectors)
    except (TypeError, ValueError) as error:
        raise InvalidResultError(f"the embedder returned no vectors: {error}") from None
    if 1 + len(others) != wanted:
        raise InvalidResultError(f"the embedder returned {counted(1 + len(others), 'vector')} for {wanted} texts")
    cosines = []
    for other in others:
        if first.ndim != 1 or first.shape != other.shape:
            raise InvalidResultError(f"vectors of the shapes {first.shape} and {other.shape} cannot be compared")
        lengths = float(numpy.linalg.norm(first) * numpy.linalg.norm(other))
        if not 0 < lengths < float("inf"):
            raise InvalidResultError("a text has the zero vector or one that is not finite, and so no direction")
        # Rounding may exceed 1 by the last digit.
        cosines.append(min(1.0, max(-1.0, float(first @ other) / lengths)))
    return max(cosines)
