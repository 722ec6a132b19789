"""The provider ``transformers``: pipelines of Hugging Face transformers in the worker process itself."""

from __future__ import annotations

import asyncio
import gc
import importlib
import itertools
import os
import threading
from collections.abc import Mapping
from typing import Any

from doteval.core import clocks
from doteval.core.error_leaves import for_logs, in_one_line
from doteval.core.histogram import Latency
from doteval.core.judging import is_judging
from doteval.core.metering import current_meter
from doteval.core.results import Usage
from doteval.errors import ResourceError
from doteval.providers.handles import ModelHandle

_numbers = itertools.count(1)
_EXTRA = "pip install 'doteval[transformers]'"


class PipelineModel:
    """A pipeline that rows share. It runs one call at a time, since pipelines and tokenizers are not thread-safe.

    Sync evaluations call it, ``model("text", max_new_tokens=20)``; async ones await `call`. Calls and their seconds are
    added to the usage of the row; tokens are not counted.
    """

    def __init__(self, name: str, pipeline: Any) -> None:
        self.name = name
        self.pipeline = pipeline
        self._device = str(getattr(pipeline, "device", "unknown"))
        self._lock = threading.Lock()
        self._calls = 0
        self._seconds = 0.0

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        """Run the pipeline on `inputs`, which is a text or a list of texts for one batch."""
        asked = clocks.perf_counter()
        with self._lock:
            start = clocks.perf_counter()
            result = self.pipeline(inputs, **parameters)
            seconds = clocks.perf_counter() - start
            self._calls += 1
            self._seconds += seconds
        meter = current_meter()
        if meter is not None:
            usage = Usage(
                self.name,
                requests=1,
                attempts=1,
                seconds=seconds,
                waited=start - asked,
                judge=is_judging(),
                latency=Latency.of(seconds),
            )
            meter.add(usage)
        return result

    async def call(self, inputs: Any, **parameters: Any) -> Any:
        """Run the pipeline in a thread, so that other rows continue meanwhile."""
        return await asyncio.to_thread(self, inputs, **parameters)

    def get_stats(self) -> dict[str, Any]:
        """The number of ``calls``, the ``seconds`` that they took, and the ``device``."""
        return {"calls": self._calls, "seconds": round(self._seconds, 3), "device": self._device}


class TransformersProvider:
    """Loads pipelines: ``setup("a-model", task="text-generation")``. ``handle.model`` is a `PipelineModel`.

    `spec` is a name on the hub or a directory, and `config` are the arguments of `transformers.pipeline`. Without
    `device` or `device_map`, the model goes to the first GPU that CUDA_VISIBLE_DEVICES allows, else to the CPU.
    """

    def __init__(self) -> None:
        self._models: dict[str, PipelineModel] = {}

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        """Load a pipeline, in a thread.

        Raises ResourceError if transformers is not installed, or the model cannot be loaded.
        """
        pipeline = await asyncio.to_thread(_load, spec, config)
        resource_id = f"transformers:{spec}:{next(_numbers)}"
        model = self._models[resource_id] = PipelineModel(spec, pipeline)
        return ModelHandle(resource_id, model, self)

    async def teardown(self, resource_id: str) -> None:
        """Drop a pipeline and free the memory of the GPU, except for what other references keep alive."""
        model = self._models.pop(resource_id)
        model.pipeline = None
        del model
        await asyncio.to_thread(_free)


def default_device(environment: Mapping[str, str], cuda_devices: int) -> str:
    """The device of a model for which none was given. `cuda_devices` is the number of devices that torch sees.

    torch numbers the visible devices from 0, whichever of the machine's devices they are.

    >>> default_device({"CUDA_VISIBLE_DEVICES": "-1"}, 2)
    'cpu'
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and visible.strip() in ("", "-1", "NoDevFiles")
    return "cpu" if hidden or not cuda_devices else "cuda:0"


def _load(spec: str, config: dict[str, Any]) -> Any:
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ResourceError(
            f"the model {spec!r} needs the package transformers, which is not installed for this Python"
            if error.name == "transformers"
            else f"the package transformers cannot be imported: {error}",
            remedy=f"Install it with {_EXTRA}, on every machine with workers.",
            logged=f"the package transformers cannot be imported: {for_logs(error)}",
        ) from error
    settings = dict(config)
    if "device" not in settings and "device_map" not in settings:
        settings["device"] = default_device(os.environ, _cuda_devices())
    try:
        return transformers.pipeline(model=spec, **settings)
    except Exception as error:
        raise ResourceError(
            f"the transformers pipeline of {spec!r} cannot be loaded: {in_one_line(error)}",
            remedy=f"Try it by itself: transformers.pipeline(model={spec!r}, ...). If a package is missing: {_EXTRA}.",
            logged=f"the transformers pipeline of {spec!r} cannot be loaded: {for_logs(error)}",
        ) from error


def _cuda_devices() -> int:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        # Without torch, the error of the pipeline says what is missing.
        return 0
    return int(torch.cuda.device_count())


def _free() -> None:
    gc.collect()
    torch = importlib.import_module("torch") if _cuda_devices() else None
    if torch is not None:
        torch.cuda.empty_cache()
