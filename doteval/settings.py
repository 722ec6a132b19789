"""The settings of a command: defaults, overridden by pyproject.toml, the environment and the command's options.

The order, weakest first: the defaults below; the table ``[tool.doteval]`` of the nearest
pyproject.toml, upwards from the current directory, that has one; the variables ``DOTEVAL_STORAGE``,
``DOTEVAL_BROKER`` and so on; the options of the command.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from doteval.core import clocks
from doteval.core.broker_url import Broker
from doteval.core.client_config import DEFAULT_CACHE_PATH, CacheMode, ClientConfig, TracingMode
from doteval.core.log_format import LogFormat
from doteval.core.queues_and_devices import DEFAULT_QUEUE, split_devices, split_queues
from doteval.errors import ResourceError, UsageError

__all__ = ["Settings", "load_settings"]

ENVIRONMENT_PREFIX = "DOTEVAL_"

# Seconds beyond its own limits after which a worker process that does not leave is killed.
_LEAVE_GRACE_SECONDS = 10.0

Count = Annotated[int, Field(ge=1)]


def _list(split: Callable[[str], object]) -> AfterValidator:
    """A text that `split` can take apart."""

    def check(text: str) -> str:
        try:
            split(text)
        except UsageError as error:
            raise PydanticCustomError("list", "{reason}", {"reason": error.message}) from None
        return text

    return AfterValidator(check)


class Settings(BaseSettings):
    """The settings of one command. Make them with `load_settings`.

    >>> Settings(workers=4).workers
    4
    """

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    storage: str | None = Field(None, description="Where results are kept, by default in ``.doteval/doteval.db``.")
    broker: str | None = Field(
        None, description="The message broker, by default a private Redis for the length of the command."
    )
    queue: Annotated[str, _list(split_queues)] = Field(
        DEFAULT_QUEUE,
        description="The queue that row tasks travel on; a worker may serve several, with commas between.",
    )
    workers: Count | None = Field(
        None, description="Local worker processes of `doteval submit`, by default one a device, else one a core."
    )
    processes: Count | None = Field(
        None, description="Worker processes of `doteval worker`, by default one a device, else one a core."
    )
    devices: Annotated[str, _list(split_devices)] | None = Field(
        None, description="CUDA_VISIBLE_DEVICES of each worker process in turn, with commas between, as in 0,1,2,3."
    )
    concurrency: Count | None = Field(
        None, description="Rows in flight in one worker process, by default 10 for async evaluations and 1 for others."
    )
    rows_per_task: Count | Literal["auto"] = Field(
        "auto", description="Rows that travel in one row task; auto measures how long rows take."
    )
    visibility_timeout: Count = Field(
        3600, description="Seconds after which Redis redelivers a message whose worker process is silent."
    )
    teardown_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds that a worker process gives the teardown of one fixture; after that it names the fixture "
        "and leaves without it, with all results stored.",
    )
    drain_timeout: float = Field(
        600.0,
        gt=0,
        description="Seconds that rows in flight get to end once a command or a worker process is asked to leave; "
        "after that it leaves without them, and they stay pending.",
    )
    cache: CacheMode = Field(
        CacheMode.ASK,
        description="Whether clients share replies: ask (those made with cache=True), on, off or refresh.",
    )
    cache_path: str | None = Field(
        None,
        description="The SQLite file of shared replies, by default the broker if it is a Redis, else "
        "``.doteval/cache.db``.",
    )
    cache_megabytes: Count = Field(512, description="Megabytes that the cache may take.")
    cache_days: float = Field(30.0, gt=0, description="Days that a reply is kept.")
    log_format: LogFormat = Field(
        "auto", description="How worker services log: text, json, or auto (text on a terminal, JSON elsewhere)."
    )
    prices: str | None = Field(
        None, description="A TOML or JSON file with what tokens cost, by model; prices of public endpoints are known."
    )
    tracing: TracingMode = Field(
        TracingMode.OFF,
        description="What traces by OpenTelemetry show: off for nothing, on, or content for prompts and replies too.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        found = find_table(Path.cwd())
        table = found[1] if found else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=dict(table))

    @property
    def leave_timeout(self) -> float:
        """Seconds after which a worker process that was asked to leave is killed: it has not kept its own limits."""
        return self.drain_timeout + self.teardown_timeout + _LEAVE_GRACE_SECONDS

    @property
    def message_broker(self) -> Broker | None:
        """The broker at the URL of the settings, None if they name none."""
        return None if self.broker is None else Broker(self.broker)

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that a worker serves."""
        return split_queues(self.queue)

    @property
    def only_queue(self) -> str:
        """The queue that rows go to. Raises UsageError if several are named."""
        queue, *others = self.queues
        if others:
            raise UsageError(
                f"rows go to one queue, and {self.queue!r} names {1 + len(others)}",
                remedy='Name one with --queue; evaluations for others say so: @pytest.mark.doteval(queue="gpu").',
            )
        return queue

    @property
    def dealt_devices(self) -> tuple[str, ...]:
        """The devices that worker processes get in turn; empty if none are set."""
        return () if self.devices is None else split_devices(self.devices)

    def client_config(self) -> ClientConfig:
        """What the clients of a command share: cache and limits. A refresh replaces replies from before now.

        Raises UsageError if rows are to be traced, and OpenTelemetry or an exporter is not installed.
        """
        if self.tracing is not TracingMode.OFF:
            # Imported here, since other commands need no OpenTelemetry.
            from doteval.tracing.exporters import check_installed

            check_installed()
        in_redis = self.broker is not None and Broker(self.broker).holds_shared_state
        path = self.cache_path or (None if in_redis else DEFAULT_CACHE_PATH)
        return ClientConfig(
            broker=self.broker,
            cache=self.cache,
            # Worker processes may run elsewhere.
            cache_path=None if path is None else str(Path(path).absolute()),
            refresh_since=self._now_of_cache(in_redis=path is None) if self.cache is CacheMode.REFRESH else 0.0,
            cache_seconds=self.cache_days * 86400.0,
            cache_bytes=self.cache_megabytes * 1024 * 1024,
            prices=None if self.prices is None else str(Path(self.prices).absolute()),
            tracing=self.tracing,
        )

    def _now_of_cache(self, *, in_redis: bool) -> float:
        """The current time of the clock that dates replies: that of Redis, since worker processes run anywhere."""
        if self.broker is None or not in_redis:
            return clocks.now()
        # Imported here, since other commands need not wait for it.
        from doteval.clients.redis_connection import redis_time

        try:
            return redis_time(self.broker)
        except ResourceError:
            # The first user of the broker reports that, or waits for it.
            return clocks.now()


def load_settings(**options: Any) -> Settings:
    """The settings of a command whose options were `options`; an option that is None was not given.

    Raises UsageError for an unknown key in the table or a value of the wrong kind, naming where it
    was set. Values are never repeated in the message: a URL may hold a password.

    >>> load_settings(storage="results.db", workers=None).storage
    'results.db'
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)
        name = str(wrong[0]["loc"][0])
        # A union reports one error for each of its members, with the member as a second location.
        reasons = " or ".join(item["msg"][:1].lower() + item["msg"][1:] for item in wrong if item["loc"][0] == name)
        raise UsageError(
            f"{_where(name, given)} cannot be used: {reasons}", remedy=Settings.model_fields[name].description
        ) from None


def settings_among(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's options that are settings too."""
    return {name: value for name, value in options.items() if name in Settings.model_fields}


def find_table(start: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The nearest pyproject.toml with a table ``[tool.doteval]``, from `start` upwards, and that table.

    Keys may be written with dashes. A relative path in `storage` is relative to the file, so that
    every directory of a project shares one store.

    Raises UsageError for an unreadable file, and for unknown keys, naming the nearest known one.
    """
    for directory in (start, *start.parents):
        path = directory / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}", remedy="Mend the file.") from None
        table = content.get("tool", {}).get("doteval")
        if table is not None:
            return path, _checked(table, path)
    return None


def _checked(table: Any, path: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"tool.doteval in {path} is not a table", remedy="Write [tool.doteval] above its keys.")
    known = list(Settings.model_fields)
    checked = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UsageError(
                f"unknown key {key!r} in [tool.doteval] of {path}",
                remedy=f"Did you mean {near!r}? The keys are {', '.join(known)}.",
                page="troubleshooting#unknown-setting",
            )
        checked[name] = value
    storage = checked.get("storage")
    if isinstance(storage, str):
        checked["storage"] = _below(path.parent, storage)
    for name in ("cache_path", "prices"):
        if isinstance(checked.get(name), str):
            checked[name] = str(path.parent / Path(checked[name]).expanduser())
    return checked


def _below(directory: Path, storage: str) -> str:
    """A relative path of a SQLite store made absolute; anything else as it is."""
    scheme, separator, rest = storage.partition("://")
    if not separator:
        return str(directory / Path(storage).expanduser())
    # sqlite:///file.db is the file here, sqlite:///a/file.db an absolute path: see doteval.store.url.
    bare = rest.removeprefix("/")
    if scheme != "sqlite" or (bare != rest and "/" in bare):
        return storage
    return str(directory / Path(bare).expanduser())


def _where(name: str, options: Mapping[str, Any]) -> str:
    if name in options:
        return f"--{name.replace('_', '-')}"
    variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
    if os.environ.get(variable):
        return f"the environment variable {variable}"
    found = find_table(Path.cwd())
    return f"{name} in [tool.doteval] of {found[0]}" if found else name
