"""Model providers by name, handles, and one model for equal specs, with providers that record their calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import doteval
from doteval.errors import NotFoundError, ResourceError, UsageError
from doteval.providers.handles import ModelHandle
from doteval.providers.registry import available, model_provider, plugins, register
from doteval.providers.shared_models import ModelProviders


class RecordingProvider:
    """A provider that records its calls. Specs that begin with "bad" fail."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.may_go_on: asyncio.Event | None = None

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        self.events.append(f"+{spec}")
        self.begun.set()
        if self.may_go_on is not None:
            await self.may_go_on.wait()
        if spec.startswith("bad"):
            raise ValueError(f"{spec} does not load")
        return ModelHandle(spec, {"spec": spec, **config}, self)

    async def teardown(self, resource_id: str) -> None:
        self.events.append(f"-{resource_id}")
        if "stuck" in resource_id:
            raise OSError("it is stuck")


def providers_of(provider: RecordingProvider) -> ModelProviders:
    return ModelProviders({"recording": provider, "other": provider}.__getitem__, lambda: ("other", "recording"))


async def end(providers: ModelProviders) -> None:
    await asyncio.to_thread(providers.close)


class SlowManager:
    """A manager whose teardown waits for an event."""

    def __init__(self) -> None:
        self.torn_down: list[str] = []
        self.may_go_on = asyncio.Event()

    async def teardown(self, resource_id: str) -> None:
        await self.may_go_on.wait()
        self.torn_down.append(resource_id)


@pytest.mark.asyncio
async def test_a_handle_is_torn_down_once_and_all_callers_wait() -> None:
    manager = SlowManager()
    handle = ModelHandle("one", object(), manager)
    callers = [asyncio.create_task(handle.teardown()) for _ in range(3)]
    done, _ = await asyncio.wait(callers, timeout=0.05)
    assert not done
    manager.may_go_on.set()
    await asyncio.gather(*callers)
    await handle.teardown()
    assert manager.torn_down == ["one"]
    with pytest.raises(ResourceError, match="one has been torn down"):
        _ = handle.model
    assert handle.get_stats() == {}


def test_the_public_names() -> None:
    assert doteval.ModelHandle is ModelHandle
    assert "ModelProvider" in doteval.__all__


@pytest.mark.asyncio
async def test_equal_specs_are_one_model() -> None:
    recording = RecordingProvider()
    providers = providers_of(recording)
    provider = providers["recording"]
    given: dict[str, Any] = {"options": {"a": [1, 2], "b": {3}}}
    first, second = await asyncio.gather(provider.setup("m", **given), provider.setup("m", **given))
    third = await providers["recording"].setup("m", options={"b": {3}, "a": [1, 2]})
    assert first.model is second.model is third.model
    assert first.resource_id == second.resource_id == "m"
    assert recording.events == ["+m"]
    for another in ({"options": 1}, {"options": True}, {"options": 1.0}, {"options": {"a": (1, 2), "b": {3}}}):
        assert (await provider.setup("m", **another)).model == {"spec": "m", **another}
    assert (await providers["other"].setup("m", **given)).model is not first.model
    assert recording.events == ["+m"] * 6
    await end(providers)
    assert recording.events == ["+m"] * 6 + ["-m"] * 6


@pytest.mark.asyncio
async def test_a_model_stays_set_up_when_one_of_its_handles_is_torn_down() -> None:
    recording = RecordingProvider()
    provider = providers_of(recording)["recording"]
    first, second = await provider.setup("m"), await provider.setup("m")
    await first.teardown()
    await first.teardown()
    assert second.model == {"spec": "m"}
    await second.teardown()
    third = await provider.setup("m")
    assert recording.events == ["+m"]
    assert third.model == {"spec": "m"}


@pytest.mark.asyncio
async def test_an_unused_model_is_torn_down_when_another_is_set_up() -> None:
    recording = RecordingProvider()
    provider = providers_of(recording)["recording"]
    used, unused = await provider.setup("used"), await provider.setup("unused")
    await unused.teardown()
    await provider.setup("next")
    assert recording.events == ["+used", "+unused", "-unused", "+next"]
    assert used.model == {"spec": "used"}


@pytest.mark.asyncio
async def test_all_models_are_torn_down_even_if_some_teardowns_fail() -> None:
    recording = RecordingProvider()
    providers = providers_of(recording)
    for spec in ("a", "stuck 1", "b", "stuck 2", "c"):
        await providers["recording"].setup(spec)
    with pytest.raises(ResourceError) as raised:
        await end(providers)
    assert recording.events[5:] == ["-c", "-stuck 2", "-b", "-stuck 1", "-a"]
    assert [line.strip() for line in raised.value.message.splitlines()[1:]] == [
        "recording 'stuck 2': OSError: it is stuck",
        "recording 'stuck 1': OSError: it is stuck",
    ]
    with pytest.raises(ResourceError, match="the session has ended"):
        await providers["recording"].setup("d")
    await end(providers)
    assert len(recording.events) == 10


@pytest.mark.asyncio
async def test_a_setup_that_fails_raises_in_all_callers_and_is_tried_again_later() -> None:
    recording = RecordingProvider()
    provider = providers_of(recording)["recording"]
    results = await asyncio.gather(provider.setup("bad"), provider.setup("bad"), return_exceptions=True)
    assert [str(result) for result in results] == ["bad does not load"] * 2
    assert recording.events == ["+bad"]
    with pytest.raises(ValueError, match="bad does not load"):
        await provider.setup("bad")
    assert recording.events == ["+bad", "+bad"]


@pytest.mark.asyncio
async def test_a_cancelled_caller_does_not_cancel_the_setup_of_the_others() -> None:
    recording = RecordingProvider()
    recording.may_go_on = asyncio.Event()
    providers = providers_of(recording)
    cancelled = asyncio.create_task(providers["recording"].setup("m"))
    waiting = asyncio.create_task(providers["recording"].setup("m"))
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    recording.may_go_on.set()
    assert (await waiting).model == {"spec": "m"}
    await end(providers)
    assert recording.events == ["+m", "-m"]


@pytest.mark.asyncio
async def test_the_end_of_the_session_interrupts_a_setup() -> None:
    recording = RecordingProvider()
    recording.may_go_on = asyncio.Event()
    providers = providers_of(recording)
    waiting = asyncio.create_task(providers["recording"].setup("m"))
    await recording.begun.wait()
    await end(providers)
    with pytest.raises(ResourceError, match="was interrupted"):
        await waiting
    assert recording.events == ["+m"]


@pytest.mark.parametrize("still", ["open", "closed"])
def test_models_of_a_loop_that_has_stopped_are_torn_down(still: str) -> None:
    recording = RecordingProvider()
    providers = providers_of(recording)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(providers["recording"].setup("m"))
    if still == "closed":
        loop.close()
    providers.close()
    assert recording.events == ["+m", "-m"]
    loop.close()


def test_rows_on_two_loops_share_a_model() -> None:
    recording = RecordingProvider()
    providers = providers_of(recording)
    models: list[Any] = []

    async def use() -> None:
        models.append((await providers["recording"].setup("m")).model)

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert models[0] is models[1]
    providers.close()
    assert recording.events == ["+m", "-m"]


@pytest.mark.asyncio
async def test_statistics_by_model() -> None:
    class Counting(RecordingProvider):
        async def setup(self, spec: str, **config: Any) -> ModelHandle:
            class Model:
                def get_stats(self) -> dict[str, int]:
                    return {"calls": len(spec)}

            return ModelHandle(spec, Model(), self)

    providers = providers_of(Counting())
    handle = await providers["recording"].setup("abc")
    assert handle.get_stats() == {"calls": 3}
    assert providers.get_stats() == {"recording abc": {"calls": 3}}


def test_names() -> None:
    providers = ModelProviders()
    assert {"openai", "transformers", "server"} <= set(providers)
    assert "server" in providers
    assert "sever" not in providers
    assert len(providers) == len(available())
    with pytest.raises(NotFoundError, match="no model provider named 'sever'\nDid you mean 'server'"):
        providers["sever"]
    assert providers["openai"] is providers["openai"]


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Announces providers as installed packages would, given as ``module:name`` by the provider's name."""

    def announce(**points: str) -> None:
        entries = [EntryPoint(name, value, "doteval.model_providers") for name, value in points.items()]
        monkeypatch.setattr(
            "doteval.core.plugins.entry_points", lambda group: entries if group == "doteval.model_providers" else []
        )
        plugins.refresh()

    monkeypatch.setattr(plugins, "_registered", dict(plugins._registered))
    return announce


def test_a_provider_of_a_package_works_beside_a_broken_one(announced: Callable[..., None]) -> None:
    here = "tests.unit.providers.test_shared_models"
    announced(recording=f"{here}:RecordingProvider", broken="no_such_module:Provider", nothing=f"{here}:NOT_A_PROVIDER")
    providers = ModelProviders()
    assert {"recording", "broken", "nothing", "openai"} <= set(providers)
    for name, problem in (("broken", "cannot be loaded: ModuleNotFoundError"), ("nothing", "str has no setup")):
        with pytest.raises(UsageError, match=problem):
            providers[name]
    assert asyncio.run(providers["recording"].setup("m")).model == {"spec": "m"}


NOT_A_PROVIDER = "a text"


def test_a_registered_provider_may_be_an_object_a_class_or_a_function(announced: Callable[..., None]) -> None:
    announced()
    recording = RecordingProvider()
    for given in (recording, RecordingProvider, lambda: recording):
        register("mine", given)
        assert callable(model_provider("mine").setup)
    assert model_provider("mine") is recording

    def needs_more(url: str) -> RecordingProvider:
        return RecordingProvider()

    register("mine", needs_more)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'mine' cannot be made: TypeError.*url"):
        model_provider("mine")
