"""BLEU and chrF: what sacrebleu says, with the version that said it."""

from __future__ import annotations

import sys

import pytest
import sacrebleu

from doteval.errors import InvalidResultError, UsageError
from doteval.evaluators import chrf, reference_texts, sentence_bleu

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


@pytest.mark.parametrize(("response", "references"), [(None, "a"), ("a", [None]), ("a", []), (3, ["a"])])
def test_what_is_no_text_fails_the_row(response: object, references: object) -> None:
    for judge in (sentence_bleu, chrf):
        with pytest.raises(InvalidResultError, match=r"no text|no references"):
            judge(response, references)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setattr(reference_texts, "_made", {})
    reference_texts._sacrebleu.cache_clear()
    with pytest.raises(UsageError, match="need sacrebleu") as raised:
        chrf("a", "b")
    assert "doteval[reference]" in str(raised.value.remedy)
