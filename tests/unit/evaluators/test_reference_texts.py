"""BLEU, chrF and ROUGE: what sacrebleu and rouge-score say, with the version that said it."""

from __future__ import annotations

import socket
import sys
from importlib.metadata import version

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators import chrf, reference_texts, rouge, sentence_bleu

VARIANTS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]

CASES = [
    ("the cat sat on the mat", ["the cat is on the mat"]),
    ("the cat sat", ["a dog ran", "the cat sat down"]),
    ("", ["something"]),
    ("Größe: 3 €", ["Größe: 4 €"]),
]


@pytest.mark.parametrize(("response", "references"), CASES)
def test_the_values_are_those_of_sacrebleu(response: str, references: list[str]) -> None:
    bleu = sentence_bleu(response, references)
    assert bleu.value == sacrebleu.sentence_bleu(response, references).score
    assert (bleu.name, bleu.metric_names) == ("sentence_bleu", ("mean",))
    assert bleu.metadata["package"] == f"sacrebleu {sacrebleu.__version__}"
    assert f"nrefs:{len(references)}|" in bleu.metadata["signature"]
    assert bleu.metadata["signature"].endswith(f"version:{sacrebleu.__version__}")
    assert chrf(response, references).value == sacrebleu.sentence_chrf(response, references).score
    plus = chrf(response, references, word_order=2, name="chrf++")
    assert plus.name == "chrf++"
    assert plus.value == sacrebleu.sentence_chrf(response, references, word_order=2).score
    assert "nw:2" in plus.metadata["signature"]


def test_one_reference_may_be_a_text() -> None:
    assert sentence_bleu("a b c d", "a b c d").value == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("response", "references"),
    [(None, "a"), ("a", [None]), ("a", []), (3, ["a"]), ("a", None), ("a", 3), ("a", b"a"), ("a", {"a": "b"})],
)
def test_what_is_no_text_fails_the_row(response: object, references: object) -> None:
    for judge in (sentence_bleu, chrf, rouge):
        with pytest.raises(InvalidResultError, match=r"no text|no references"):
            judge(response, references)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setattr(reference_texts, "_made", {})
    reference_texts._sacrebleu.cache_clear()
    with pytest.raises(UsageError, match="need sacrebleu") as raised:
        chrf("a", "b")
    assert "doteval[reference]" in str(raised.value.remedy)
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    monkeypatch.setitem(sys.modules, "rouge_score.tokenizers", None)
    reference_texts._rouge_scorer.cache_clear()
    with pytest.raises(UsageError, match="needs rouge-score") as raised:
        rouge("a", "b")
    assert "doteval[rouge]" in str(raised.value.remedy)


@given(
    variant=st.sampled_from(VARIANTS),
    stemmer=st.booleans(),
    response=st.text("abcdefg sing.\n", max_size=60),
    references=st.lists(st.text("abcdefg sing.\n", max_size=60), min_size=1, max_size=3),
)
def test_rouge_is_that_of_the_package(variant: str, stemmer: bool, response: str, references: list[str]) -> None:
    score = rouge(response, references, variant, stemmer=stemmer)
    expected = RougeScorer([variant], use_stemmer=stemmer).score_multi(references, response)[variant]
    assert (score.metadata["precision"], score.metadata["recall"], score.value) == expected
    assert (score.name, score.metric_names) == (variant, ("mean",))
    assert score.metadata["package"] == f"rouge-score {version('rouge-score')}"


def test_rouge_counts_words_as_the_paper_does() -> None:
    score = rouge("police kill the gunman", "police killed the gunman")  # Lin 2004, section 3.1: S1 and S2
    assert score.value == score.metadata["precision"] == score.metadata["recall"] == 3 / 4
    assert rouge("the gunman kill police", "police killed the gunman").value == 2 / 4
    assert rouge("police kill the gunman", "police killed the gunman", "rouge1", stemmer=True).value == 1
    assert rouge("a b", ["x", "a b"], "rouge1", name="overlap").name == "overlap"
    # Precision 1/2 and recall 1/4, which an exchange of response and reference would exchange.
    asymmetric = rouge("a z", "a b c d", "rouge1")
    assert (asymmetric.metadata["precision"], asymmetric.metadata["recall"]) == (1 / 2, 1 / 4)


def test_rouge_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("rouge-score asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    reference_texts._rouge_scorer.cache_clear()
    for variant in VARIANTS:
        assert rouge("The cats ran.\nTwo sit.", "The cat ran.\nTwo sat.", variant, stemmer=True).value > 0


def test_rouge_says_what_it_cannot_compare() -> None:
    with pytest.raises(UsageError, match=r"no variant 'rouge-l'.* rouge1, rouge2, rougeL, rougeLsum"):
        rouge("a", "a", "rouge-l")
    # Each would have scored 0 against itself.
    for text in ("Привет, мир", "東京", ["Tokyo", "東京"]):
        with pytest.raises(InvalidResultError, match="a to z"):
            rouge("Tokyo", text)
    # What a model answered is a wrong answer, and a reference without words is what the dataset says.
    assert (
        rouge("東京", "Tokyo").value == rouge("", "Tokyo").value == rouge("a", "").value == rouge("a", "?!").value == 0
    )


def test_rouge_refuses_texts_whose_table_would_fill_the_memory() -> None:
    long = "word " * 5001
    for variant in ("rougeL", "rougeLsum"):
        with pytest.raises(InvalidResultError, match=r"5,001 and 5,001 words takes a table of 25,010,001 cells"):
            rouge(long, long, variant)
    assert rouge(long, long, "rouge2").value == 1
    assert rouge(long, "one word").value > 0
