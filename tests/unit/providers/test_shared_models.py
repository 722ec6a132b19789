"""Model providers by name, handles, and one model for equal specs, with providers that only tell what happens."""

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


class Telling:
    """A provider that notes what it is asked to do. Specs that begin with "bad" fail."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.begun = asyncio.Event()
        self.gate: asyncio.Event | None = None

    async def setup(self, spec: str, **config: Any) -> ModelHandle:
        self.events.append(f"+{spec}")
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if spec.startswith("bad"):
            raise ValueError(f"{spec} does not load")
        return ModelHandle(spec, {"spec": spec, **config}, self)

    async def teardown(self, resource_id: str) -> None:
        self.events.append(f"-{resource_id}")
        if "stuck" in resource_id:
            raise OSError("it is stuck")


def providers_of(provider: Telling) -> ModelProviders:
    return ModelProviders({"telling": provider, "other": provider}.__getitem__, lambda: ("other", "telling"))


async def end(providers: ModelProviders) -> None:
    await asyncio.to_thread(providers.close)


class Lagging:
    """A manager whose teardown waits to be let go."""

    def __init__(self) -> None:
        self.torn_down: list[str] = []
        self.gate = asyncio.Event()

    async def teardown(self, resource_id: str) -> None:
        await self.gate.wait()
        self.torn_down.append(resource_id)


@pytest.mark.asyncio
async def test_a_handle_is_torn_down_once_and_all_callers_wait() -> None:
    manager = Lagging()
    handle = ModelHandle("one", object(), manager)
    callers = [asyncio.create_task(handle.teardown()) for _ in range(3)]
    done, _ = await asyncio.wait(callers, timeout=0.05)
    assert not done
    manager.gate.set()
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
    telling = Telling()
    providers = providers_of(telling)
    provider = providers["telling"]
    given: dict[str, Any] = {"options": {"a": [1, 2], "b": {3}}}
    first, second = await asyncio.gather(provider.setup("m", **given), provider.setup("m", **given))
    third = await providers["telling"].setup("m", options={"b": {3}, "a": [1, 2]})
    assert first.model is second.model is third.model
    assert first.resource_id == second.resource_id == "m"
    assert telling.events == ["+m"]
    for another in ({"options": 1}, {"options": True}, {"options": 1.0}, {"options": {"a": (1, 2), "b": {3}}}):
        assert (await provider.setup("m", **another)).model == {"spec": "m", **another}
    assert (await providers["other"].setup("m", **given)).model is not first.model
    assert telling.events == ["+m"] * 6
    await end(providers)
    assert telling.events == ["+m"] * 6 + ["-m"] * 6


@pytest.mark.asyncio
async def test_a_handle_given_back_leaves_the_model_to_others_and_to_the_next_row() -> None:
    telling = Telling()
    provider = providers_of(telling)["telling"]
    first, second = await provider.setup("m"), await provider.setup("m")
    await first.teardown()
    await first.teardown()
    assert second.model == {"spec": "m"}
    await second.teardown()
    third = await provider.setup("m")
    assert telling.events == ["+m"]
    assert third.model == {"spec": "m"}


@pytest.mark.asyncio
async def test_a_model_that_nobody_uses_makes_room_for_another() -> None:
    telling = Telling()
    provider = providers_of(telling)["telling"]
    used, unused = await provider.setup("used"), await provider.setup("unused")
    await unused.teardown()
    await provider.setup("next")
    assert telling.events == ["+used", "+unused", "-unused", "+next"]
    assert used.model == {"spec": "used"}


@pytest.mark.asyncio
async def test_everything_is_torn_down_though_some_of_it_fails() -> None:
    telling = Telling()
    providers = providers_of(telling)
    for spec in ("a", "stuck 1", "b", "stuck 2", "c"):
        await providers["telling"].setup(spec)
    with pytest.raises(ResourceError) as raised:
        await end(providers)
    assert telling.events[5:] == ["-c", "-stuck 2", "-b", "-stuck 1", "-a"]
    assert [line.strip() for line in raised.value.message.splitlines()[1:]] == [
        "telling 'stuck 2': OSError: it is stuck",
        "telling 'stuck 1': OSError: it is stuck",
    ]
    with pytest.raises(ResourceError, match="the session is over"):
        await providers["telling"].setup("d")
    await end(providers)
    assert len(telling.events) == 10


@pytest.mark.asyncio
async def test_a_set_up_that_fails_fails_for_all_who_wait_and_is_tried_again_later() -> None:
    telling = Telling()
    provider = providers_of(telling)["telling"]
    results = await asyncio.gather(provider.setup("bad"), provider.setup("bad"), return_exceptions=True)
    assert [str(result) for result in results] == ["bad does not load"] * 2
    assert telling.events == ["+bad"]
    with pytest.raises(ValueError, match="bad does not load"):
        await provider.setup("bad")
    assert telling.events == ["+bad", "+bad"]


@pytest.mark.asyncio
async def test_a_caller_who_gives_up_takes_nothing_from_the_others() -> None:
    telling = Telling()
    telling.gate = asyncio.Event()
    providers = providers_of(telling)
    impatient = asyncio.create_task(providers["telling"].setup("m"))
    patient = asyncio.create_task(providers["telling"].setup("m"))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    telling.gate.set()
    assert (await patient).model == {"spec": "m"}
    await end(providers)
    assert telling.events == ["+m", "-m"]


@pytest.mark.asyncio
async def test_the_end_of_the_session_breaks_a_set_up_off() -> None:
    telling = Telling()
    telling.gate = asyncio.Event()
    providers = providers_of(telling)
    waiting = asyncio.create_task(providers["telling"].setup("m"))
    await telling.begun.wait()
    await end(providers)
    with pytest.raises(ResourceError, match="broken off"):
        await waiting
    assert telling.events == ["+m"]


@pytest.mark.parametrize("still", ["open", "closed"])
def test_models_of_a_loop_that_does_not_run_any_more_are_torn_down(still: str) -> None:
    telling = Telling()
    providers = providers_of(telling)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(providers["telling"].setup("m"))
    if still == "closed":
        loop.close()
    providers.close()
    assert telling.events == ["+m", "-m"]
    loop.close()


def test_rows_on_two_loops_share_a_model() -> None:
    telling = Telling()
    providers = providers_of(telling)
    models: list[Any] = []

    async def use() -> None:
        models.append((await providers["telling"].setup("m")).model)

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert models[0] is models[1]
    providers.close()
    assert telling.events == ["+m", "-m"]


@pytest.mark.asyncio
async def test_statistics_by_model() -> None:
    class Counting(Telling):
        async def setup(self, spec: str, **config: Any) -> ModelHandle:
            class Model:
                def get_stats(self) -> dict[str, int]:
                    return {"calls": len(spec)}

            return ModelHandle(spec, Model(), self)

    providers = providers_of(Counting())
    handle = await providers["telling"].setup("abc")
    assert handle.get_stats() == {"calls": 3}
    assert providers.get_stats() == {"telling abc": {"calls": 3}}


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
    """Says what installed packages announce: modules and names by the provider's name."""

    def announce(**points: str) -> None:
        entries = [EntryPoint(name, value, "doteval.model_providers") for name, value in points.items()]
        monkeypatch.setattr(
            "doteval.core.plugins.entry_points", lambda group: entries if group == "doteval.model_providers" else []
        )
        plugins.refresh()

    monkeypatch.setattr(plugins, "_registered", dict(plugins._registered))
    return announce


def test_a_packages_provider_and_a_broken_one_beside_it(announced: Callable[..., None]) -> None:
    here = "tests.unit.providers.test_shared_models"
    announced(told=f"{here}:Telling", broken="no_such_module:Provider", nothing=f"{here}:NOT_A_PROVIDER")
    providers = ModelProviders()
    assert {"told", "broken", "nothing", "openai"} <= set(providers)
    for name, problem in (("broken", "cannot be loaded: ModuleNotFoundError"), ("nothing", "str has no setup")):
        with pytest.raises(UsageError, match=problem):
            providers[name]
    assert asyncio.run(providers["told"].setup("m")).model == {"spec": "m"}


NOT_A_PROVIDER = "a text"


def test_a_registered_provider_may_be_an_object_a_class_or_a_function(announced: Callable[..., None]) -> None:
    announced()
    telling = Telling()
    for given in (telling, Telling, lambda: telling):
        register("mine", given)
        assert callable(model_provider("mine").setup)
    assert model_provider("mine") is telling

    def needs_more(url: str) -> Telling:
        return Telling()

    register("mine", needs_more)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'mine' cannot be made: TypeError.*url"):
        model_provider("mine")
