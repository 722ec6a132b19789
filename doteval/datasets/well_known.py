"""Datasets of the Hugging Face hub that `@foreach` knows by name: ``@foreach.gsm8k("test")``.

A package that registers a dataset of the same name takes precedence.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from doteval.core.plugins import did_you_mean
from doteval.datasets.base import Dataset
from doteval.datasets.hub import HubAddress, LoadedSplit, load_from_hub
from doteval.errors import DatasetError


class HubDataset(Dataset):
    """A split of a dataset of the hub, whose rows `values` makes. Nothing is loaded before its rows are asked for.

    `revision`: a branch, a tag or a commit; None is the newest one. `streaming`: rows are downloaded as they are read.

    Raises DatasetError: there is no such split.
    """

    repository: ClassVar[str]
    config: ClassVar[str | None] = None
    # The extra that it needs, as `pip install 'doteval[EXTRA]'` names it.
    needs_extra: ClassVar[str] = "hf"

    def __init__(self, split: str, *, revision: str | None = None, streaming: bool = False) -> None:
        if split not in self.splits:
            raise DatasetError(f"{self.name} has no split {split!r}", remedy=did_you_mean(split, self.splits))
        self._address = HubAddress(self.repository, split, self.config, revision, streaming)

    @abstractmethod
    def values(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values of a row, in the order of `columns`."""

    @functools.cached_property
    def _loaded(self) -> LoadedSplit:
        return load_from_hub(self._address)

    @functools.cached_property
    def fingerprint(self) -> str | None:
        return self._loaded.fingerprint

    def __len__(self) -> int:
        if self._loaded.num_rows is None:
            raise TypeError(f"the number of rows of {self.name} is not known")
        return self._loaded.num_rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return map(self.values, self._loaded.rows)


class Gsm8k(HubDataset):
    """Grade school mathematics: 7,473 and 1,319 problems with worked answers (Cobbe et al., 2021, arXiv:2110.14168).

    The published answer is a text whose last line is ``#### NUMBER``; here it is `reasoning` and `answer`.

    >>> Gsm8k("test").values({"question": "2 + 2?", "answer": "Two and two.\\n#### 4"})
    ('2 + 2?', 'Two and two.', '4')
    """

    name = "gsm8k"
    splits = ("train", "test")
    columns: Sequence[str] = ("question", "reasoning", "answer")
    repository = "openai/gsm8k"
    config = "main"

    def values(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        reasoning, mark, answer = record["answer"].rpartition("####")
        if not mark:
            raise DatasetError("a row of gsm8k has no line with #### before its answer")
        return record["question"], reasoning.strip(), answer.strip()


class Mmlu(HubDataset):
    """Multiple choice questions on 57 subjects (Hendrycks et al., 2020, arXiv:2009.03300).

    `answer` is the index of the right one among `choices`, from 0.

    >>> record = {"question": "2 + 2?", "subject": "algebra", "choices": ["3", "4"], "answer": 1}
    >>> Mmlu("test").values(record)
    ('2 + 2?', 'algebra', ['3', '4'], 1)
    """

    name = "mmlu"
    splits = ("test", "validation", "dev")
    columns: Sequence[str] = ("question", "subject", "choices", "answer")
    repository = "cais/mmlu"
    config = "all"

    def values(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record[column] for column in self.columns)


class HumanEval(HubDataset):
    """Python functions to complete, each with its tests (Chen et al., 2021, arXiv:2107.03374). It has one split.

    >>> HumanEval().columns
    ('prompt', 'canonical_solution', 'test', 'entry_point')
    """

    name = "humaneval"
    splits = ("test",)
    columns: Sequence[str] = ("prompt", "canonical_solution", "test", "entry_point")
    repository = "openai/openai_humaneval"

    def __init__(self, split: str = "test", *, revision: str | None = None, streaming: bool = False) -> None:
        super().__init__(split, revision=revision, streaming=streaming)

    def values(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record[column] for column in self.columns)


WELL_KNOWN: Mapping[str, type[HubDataset]] = {each.name: each for each in (Gsm8k, Mmlu, HumanEval)}
