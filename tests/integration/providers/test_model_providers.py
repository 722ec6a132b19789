"""The provider ``openai`` with the mock server, and ``transformers`` with a stand-in and a tiny real model."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from doteval.clients.shared_state import close_shared
from doteval.core.client_config import CacheMode, ClientConfig, configure_clients
from doteval.core.metering import metering
from doteval.errors import ResourceError
from doteval.mock_openai import MockOpenAI
from doteval.providers.shared_models import ModelProviders
from doteval.providers.transformers import default_device
from tests.support.openai import mock_openai, mock_openai_process

__all__ = ["mock_openai", "mock_openai_process"]

_number = count()


@pytest.fixture
def providers() -> Iterator[ModelProviders]:
    made = ModelProviders()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    yield
    close_shared()
    configure_clients(ClientConfig())


def test_openai_requests_are_cached_counted_and_tried_again(
    providers: ModelProviders, mock_openai: MockOpenAI, tmp_path: Path
) -> None:
    configure_clients(ClientConfig(cache=CacheMode.ON, cache_path=str(tmp_path / "cache.db")))
    settings = {"base_url": mock_openai.base_url, "api_key": f"sk-{next(_number)}"}

    async def ask() -> tuple[Any, Any]:
        handle, same = [await providers["openai"].setup("a-model", **settings) for _ in range(2)]
        assert handle.model is same.model
        assert (handle.model.name, handle.model.base_url) == ("a-model", mock_openai.base_url)
        with metering() as meter:
            replies = [await handle.model.chat("[[status:500x1]] hello", temperature=0) for _ in range(2)]
            replies.append(
                await handle.model.chat(
                    [{"role": "user", "content": "[[status:500x1]] hello"}], temperature=0, max_tokens=1
                )
            )
        assert replies[0].choices[0].message.content == replies[1].choices[0].message.content
        assert len(str(replies[2].choices[0].message.content).split()) == 1
        return meter.reading(), handle.get_stats()

    (usage,), stats = asyncio.run(ask())
    sent = mock_openai.stats()
    assert (usage.model, usage.requests, usage.cache_hits) == ("a-model", 3, 1)
    assert usage.attempts == sent["requests"] == 3
    assert usage.completion_tokens == sent["completion_tokens"]
    assert stats["requests"] == 3


def test_without_an_api_key_a_base_url_is_required(
    providers: ModelProviders, mock_openai: MockOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(**config: Any) -> str:
        handle = await providers["openai"].setup("m", **config)
        return str((await handle.model.chat("hello")).choices[0].message.content)

    with pytest.raises(ResourceError, match=r"no API for the model 'm'[\s\S]*OPENAI_API_KEY"):
        asyncio.run(ask())
    assert asyncio.run(ask(base_url=mock_openai.base_url)).startswith("mock reply")
    monkeypatch.setenv("OPENAI_BASE_URL", mock_openai.base_url)
    assert asyncio.run(ask()).startswith("mock reply")


@pytest.mark.parametrize(
    ("visible", "devices", "expected"),
    [(None, 0, "cpu"), (None, 2, "cuda:0"), ("3", 1, "cuda:0"), ("1,2", 2, "cuda:0"), ("", 2, "cpu"), ("-1", 2, "cpu")],
)
def test_the_default_device_of_a_pipeline(visible: str | None, devices: int, expected: str) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert default_device(environment, devices) == expected


class StandIn:
    """A pipeline with the interface that the provider uses. It fails if two threads call it at once."""

    def __init__(self, model: str, **settings: Any) -> None:
        if model == "missing":
            raise OSError("missing is not a local folder\nand a long explanation")
        self.device = settings.get("device", "chosen by device_map")
        self.settings = settings
        self._entered = threading.Lock()

    def __call__(self, inputs: str, **parameters: Any) -> Any:
        assert self._entered.acquire(blocking=False)
        try:
            if inputs == "raise":
                raise ValueError("no")
            return [{"generated_text": inputs * 2, **parameters}]
        finally:
            self._entered.release()


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package; torch sees no GPU."""
    package = ModuleType("transformers")
    package.pipeline = lambda model, **settings: StandIn(model, **settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", package)
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("transformers")
def test_a_pipeline_is_shared_by_rows_one_at_a_time(providers: ModelProviders) -> None:
    async def use() -> None:
        handle = await providers["transformers"].setup("tiny", task="text-generation", revision="abc")
        model = handle.model
        assert model.pipeline.settings == {"task": "text-generation", "revision": "abc", "device": "cpu"}
        with metering() as meter:
            results = await asyncio.gather(*(model.call(str(number), max_new_tokens=2) for number in range(20)))
            assert model("plain") == [{"generated_text": "plainplain"}]
            with pytest.raises(ValueError, match="no"):
                await model.call("raise")
        assert results == [[{"generated_text": str(number) * 2, "max_new_tokens": 2}] for number in range(20)]
        (usage,) = meter.reading()
        assert (usage.model, usage.requests, usage.attempts, usage.latency.total) == ("tiny", 21, 21, 21)
        assert handle.get_stats().keys() == {"calls", "seconds", "device"}
        assert (handle.get_stats()["calls"], handle.get_stats()["device"]) == (21, "cpu")
        assert (await providers["transformers"].setup("tiny", device_map="auto")).model.pipeline.settings == {
            "device_map": "auto"
        }

    asyncio.run(use())


@pytest.mark.usefixtures("transformers")
def test_the_memory_of_a_pipeline_is_freed_by_its_teardown() -> None:
    providers = ModelProviders()

    async def set_up() -> tuple[Any, weakref.ref[Any]]:
        handle = await providers["transformers"].setup("tiny")
        return handle.model, weakref.ref(handle.model.pipeline)

    model, pipeline = asyncio.run(set_up())
    assert pipeline() is not None
    providers.close()
    gc.collect()
    assert pipeline() is None
    assert model.get_stats()["calls"] == 0


@pytest.mark.usefixtures("transformers")
def test_the_error_names_a_model_that_cannot_be_loaded(providers: ModelProviders) -> None:
    with pytest.raises(ResourceError) as raised:
        asyncio.run(providers["transformers"].setup("missing"))
    assert raised.value.message == (
        "the transformers pipeline of 'missing' cannot be loaded: OSError: missing is not a local folder"
    )


def test_the_error_says_how_to_install_the_package(providers: ModelProviders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ResourceError, match=r"not installed[\s\S]*pip install 'doteval\[transformers\]'"):
        asyncio.run(providers["transformers"].setup("tiny"))


MAKE_MODEL = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

words = {word: number for number, word in enumerate(["<end>", "<unknown>", "one", "two", "three", "four"])}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
fast.save_pretrained(sys.argv[1])
settings = GPT2Config(
    vocab_size=len(words), n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
)
GPT2LMHeadModel(settings).save_pretrained(sys.argv[1])
"""

USE_MODEL = """
import asyncio, json, sys
from doteval.core.metering import metering
from doteval.providers.shared_models import ModelProviders

providers = ModelProviders()

async def use():
    handle = await providers["transformers"].setup(sys.argv[1], task="text-generation")
    model = handle.model
    with metering() as meter:
        texts = await asyncio.gather(*(
            model.call(text, max_new_tokens=4, do_sample=False, return_full_text=True)
            for text in ("one two", "two three", "three four", "four one")
        ))
    (usage,) = meter.reading()
    return [text[0]["generated_text"] for text in texts], usage.requests, model.get_stats()["device"]

answer = asyncio.run(use())
providers.close()
json.dump(answer, sys.stdout)
"""


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("transformers", "torch", "tokenizers")),
    reason="a real pipeline needs transformers and torch: pip install 'doteval[transformers]'",
)
def test_a_real_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model with random weights is loaded from its directory, in a process of its own since torch is large."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    subprocess.run([sys.executable, "-c", MAKE_MODEL, str(tmp_path)], check=True, timeout=300)
    ran = subprocess.run(
        [sys.executable, "-c", USE_MODEL, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    texts, requests, device = json.loads(ran.stdout)
    assert requests == 4
    assert device == "cpu" or device.startswith("cuda")
    for start, text in zip(("one two", "two three", "three four", "four one"), texts, strict=True):
        assert text.startswith(start)
