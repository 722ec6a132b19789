"""Datasets of the Hugging Face hub by address: ``hf://OWNER/NAME?split=SPLIT&config=CONFIG&revision=REVISION``.

The `datasets` library (the extra ``hf``) downloads a dataset once and maps it into memory; with ``streaming=true`` it
downloads rows as they are read. Either way no dataset is held in memory, and no code of a dataset is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from doteval.core.plugins import did_you_mean
from doteval.errors import DatasetError

# What a user types to have the library.
INSTALL = "pip install 'doteval[hf]'"

_FORM = "hf://OWNER/NAME?split=SPLIT, and if need be &config=CONFIG, &revision=REVISION and &streaming=true"
_PARAMETERS = ("split", "config", "revision", "streaming")
# A Path has only one slash left. Libraries that open files write datasets/ before the owner.
_ADDRESS = re.compile(r"hf:/+(?:datasets/)?(?P<repository>[^?#]*)(?:\?(?P<query>.*))?", re.IGNORECASE | re.DOTALL)
_REPOSITORY = re.compile(r"(?:[\w.-]+/)?[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A split of a dataset of the hub. Without a revision it is the newest one.

    >>> HubAddress.parse("hf://openai/gsm8k?split=test&config=main")
    HubAddress(repository='openai/gsm8k', split='test', config='main', revision=None, streaming=False)
    """

    repository: str
    split: str | None = None
    config: str | None = None
    revision: str | None = None
    streaming: bool = False

    @classmethod
    def parse(cls, address: str) -> HubAddress:
        """Take an address apart. Raises DatasetError: it has another form."""
        found = _ADDRESS.fullmatch(address)
        if found is None or not _REPOSITORY.fullmatch(found["repository"].strip("/")):
            raise DatasetError(f"{address.partition('?')[0]!r} is no dataset of the hub", remedy=f"Write {_FORM}.")
        given = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
        unknown = [name for name in given if name not in _PARAMETERS]
        if unknown:
            raise DatasetError(
                f"the address of {found['repository']} has an unknown parameter {unknown[0]!r}",
                remedy=did_you_mean(unknown[0], _PARAMETERS),
            )
        streaming = given.pop("streaming", "false").casefold()
        if streaming not in ("true", "false"):
            raise DatasetError(f"streaming is {streaming!r}", remedy="Give streaming=true or streaming=false.")
        return cls(found["repository"].strip("/"), **given, streaming=streaming == "true")

    @property
    def shown(self) -> str:
        """The repository, for messages."""
        return f"hf://{self.repository}"

    def fingerprint(self, commit: str) -> str:
        """What names the rows for ever: the split at a commit."""
        query = urlencode({"config": self.config, "split": self.split} if self.config else {"split": self.split})
        return f"hf://{self.repository}@{commit}?{query}"


@dataclass(frozen=True, slots=True)
class LoadedSplit:
    """A dataset of the `datasets` library, and what is recorded of it. `num_rows` is None if it is not known."""

    rows: Any
    description: str
    fingerprint: str | None
    num_rows: int | None


def is_hub_address(source: object) -> bool:
    """Whether a dataset is an address of the hub.

    >>> is_hub_address("hf://openai/gsm8k?split=test"), is_hub_address("rows.csv")
    (True, False)
    """
    return _ADDRESS.match(str(source)) is not None


def load_from_hub(address: HubAddress) -> LoadedSplit:
    """Load a split of a dataset, downloading what is not in the cache of the `datasets` library.

    The revision is resolved to a commit first, and the fingerprint names it. With ``HF_HUB_OFFLINE=1`` the copy in the
    cache is used.

    Raises DatasetError: the library is missing, the hub does not answer, or there is no such dataset, configuration,
        revision or split, or none that may be read; the remedy says what to do. It has no cause, whose traceback
        through several libraries would hide that.
    """
    library, hub = _library("datasets"), _library("huggingface_hub")
    commit = _commit(hub, address)
    revision = commit or address.revision
    if address.split is None:
        names = _splits(library, address, revision)
        raise DatasetError(
            f"the address {address.shown} names no split",
            remedy=f"Add one: ?split={names[0]}. There are: {_shortened(', '.join(names))}.",
        )
    try:
        rows = library.load_dataset(
            address.repository, address.config, split=address.split, revision=revision, streaming=address.streaming
        )
    except Exception as error:  # noqa: BLE001 - of several libraries; the message quotes it
        raise _not_loaded(address, error) from None
    if commit is None:
        commit = _cached_commit(rows)
        _check_cached(address, commit)
    splits = getattr(getattr(rows, "info", None), "splits", None) or {}
    known = splits.get(address.split) if isinstance(splits, Mapping) else None
    return LoadedSplit(
        rows,
        f"the dataset {address.shown}",
        None if commit is None else address.fingerprint(commit),
        getattr(known, "num_examples", None) or None,
    )


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise DatasetError(
            f"datasets of the Hugging Face hub need the package {name}, which cannot be imported",
            remedy=f"Install it: {INSTALL}.",
        ) from None


def _commit(hub: ModuleType, address: HubAddress) -> str | None:
    """The commit of the revision; None if the hub is not to be asked."""
    errors = _library("huggingface_hub.errors")
    try:
        return str(hub.HfApi().dataset_info(address.repository, revision=address.revision).sha)
    except errors.OfflineModeIsEnabled:
        return None
    except errors.GatedRepoError:
        raise DatasetError(
            f"the dataset {address.shown} is gated: its owner gives access to accounts that have asked",
            remedy="Accept its terms on its page, and log in: hf auth login, or a token in HF_TOKEN.",
        ) from None
    except errors.RevisionNotFoundError:
        raise DatasetError(
            f"the dataset {address.shown} has no revision {address.revision!r}",
            remedy="Give a branch, a tag or a commit of it, or leave revision= out for the newest one.",
        ) from None
    except errors.RepositoryNotFoundError:
        raise DatasetError(
            f"the hub has no dataset {address.shown}, or a private one that you may not read",
            remedy="Check the name. For a private dataset log in: hf auth login, or a token in HF_TOKEN.",
        ) from None
    except errors.HFValidationError:
        raise DatasetError(f"{address.shown} is no dataset of the hub", remedy=f"Write {_FORM}.") from None
    except Exception as error:  # noqa: BLE001 - of several libraries; the message quotes it
        raise DatasetError(
            f"the Hugging Face hub does not answer for {address.shown}: {_first_line(error)}",
            remedy="Check the network and HF_ENDPOINT. With HF_HUB_OFFLINE=1 the copy in the cache is used, if any.",
        ) from None


def _splits(library: ModuleType, address: HubAddress, revision: str | None) -> list[str]:
    try:
        return list(library.get_dataset_split_names(address.repository, address.config, revision=revision))
    except Exception as error:  # noqa: BLE001 - of several libraries; the message quotes it
        raise _not_loaded(address, error) from None


def _not_loaded(address: HubAddress, error: Exception) -> DatasetError:
    said = " ".join(str(error).split())
    if isinstance(error, ValueError) and "Config name is missing" in said:
        choices = re.search(r"available configs: \[(.*?)\]", said)
        names = choices[1].replace("'", "") if choices else "those on its page"
        return DatasetError(
            f"the dataset {address.shown} has several configurations", remedy=f"Add &config=NAME: {names}."
        )
    if isinstance(error, ValueError) and (
        found := re.search(r"BuilderConfig .* not found. Available: \[(.*?)\]", said)
    ):
        return DatasetError(
            f"the dataset {address.shown} has no configuration {address.config!r}",
            remedy=f"There are: {_shortened(found[1])}.",
        )
    if isinstance(error, ValueError) and (found := re.search(r"(?:Unknown|Bad) split[^[]*\[([^][]*)\]", said)):
        return DatasetError(
            f"the dataset {address.shown} has no split {address.split!r}", remedy=f"There are: {_shortened(found[1])}."
        )
    if isinstance(error, ConnectionError):
        return DatasetError(
            f"the dataset {address.shown} is not in the cache, and the hub is not asked or does not answer",
            remedy="Unset HF_HUB_OFFLINE to download it, or copy the cache (HF_HOME) of a machine that has it.",
        )
    return DatasetError(
        f"the dataset {address.shown} cannot be loaded: {type(error).__name__}: {_first_line(error)}",
        remedy="The datasets library says so; load_dataset(...) in Python shows where.",
    )


def _cached_commit(rows: Any) -> str | None:
    """The commit of a copy in the cache: the directory of its files is called so."""
    files = getattr(rows, "cache_files", None) or []
    names = {part for file in files for part in re.split(r"[\\/]", str(file.get("filename", "")))}
    return next((name for name in sorted(names) if _COMMIT.fullmatch(name)), None)


def _check_cached(address: HubAddress, commit: str | None) -> None:
    # Offline, the library gives the newest copy in the cache, whatever revision was asked for.
    if address.revision is not None and address.revision != commit:
        raise DatasetError(
            f"the cache has {address.shown} at {commit or 'an unknown commit'}, not at {address.revision!r}",
            remedy="Give the whole commit that is in the cache as revision=, or unset HF_HUB_OFFLINE.",
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _shortened(names: str) -> str:
    several = [name.strip().strip("'\"") for name in names.split(",")]
    more = f" and {len(several) - 20} more" if len(several) > 20 else ""
    return ", ".join(several[:20]) + more
