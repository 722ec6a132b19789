"""The page of settings and environment variables."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

from docs.generate.commands import commands
from docs.generate.markdown import MissingTextError, code, page_of, table
from doteval.settings import ENVIRONMENT_PREFIX, Settings

# The environment variables that the code reads besides the settings. A test compares this list with the code.
VARIABLES = {
    "doteval": {
        "DOTEVAL_DEBUG": "Any value but `0` shows the traceback of every error.",
        "DOTEVAL_PATH": "The evaluation files that `celery -A workers worker` serves, with `:` between; `.` if unset.",
        "DOTEVAL_VIEW_TOKEN": "The token of `doteval view`; the same as its `--token`.",
        "DOTEVAL_VIEW_URL": "Where `doteval view` runs, for the links of Flower; the same as `--view-url`.",
        "DOTEVAL_FLOWER_AUTH": "`USER:PASSWORD` of Flower; the same as `--auth` of `doteval flower`.",
        "DOTEVAL_FLOWER_URL": "Where Flower runs, for the links of the view; the same as `--flower-url`.",
        "DOTEVAL_WORKER": "Set by a worker service for its processes: their options. Do not set it yourself.",
        "_DOTEVAL_COMPLETE": "Set by the shell that asks for completions.",
    },
    "Terminals": {
        "PAGER": "The program that shows long output; `less` if unset, none if empty.",
        "LESS": "The options of `less`; `FRX` if unset.",
        "COLUMNS": "The width of output into a file or a pipe; 160 if unset.",
        "TERM": "`dumb` turns off progress bars that move the cursor.",
    },
    "Model APIs": {
        "OPENAI_API_KEY": "The key of the fixtures `openai_client` and `async_openai_client`, and of the provider `openai`.",
        "OPENAI_BASE_URL": "Their endpoint; OpenAI's own if unset.",
    },
    "Devices": {
        "CUDA_VISIBLE_DEVICES": "The devices of a process. A worker service sets it for each of its processes: see `devices`.",
    },
    "Continuous integration": {
        "GITHUB_STEP_SUMMARY": "The file that `--github-summary` appends to.",
        "GITHUB_WORKSPACE": "The directory that paths in annotations are relative to.",
        "GITHUB_HEAD_REF": "The branch of a run that pull requests start, where git has none checked out.",
        "GITHUB_REF_NAME": "The branch of other runs there.",
        "CI_COMMIT_BRANCH": "The same at GitLab.",
    },
    "Monitoring": {
        "PROMETHEUS_MULTIPROC_DIR": "Set by a worker service with `--metrics-port` for its processes, which count in files there.",
        "OTEL_TRACES_EXPORTER": "Where traces go: see [Tracing](../tracing.md).",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "The collector of traces; also every other variable of OpenTelemetry's exporter.",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "The same for traces only; it comes first.",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "`http/protobuf`, also if unset, or `grpc`, which needs its exporter.",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "The same for traces only.",
    },
    "Directories": {
        "XDG_RUNTIME_DIR": "Where model servers that processes share keep their sockets; the directory of temporary files if unset.",
    },
}


def page() -> str:
    return page_of(
        "Settings and environment variables",
        "Options of a command come first, then environment variables, then the table `[tool.doteval]` of the nearest "
        "`pyproject.toml` that has one, searched upwards from the current directory, then the defaults. Keys may be "
        "written with dashes. An unknown key is an error. A variable that is empty counts as unset. A relative path in "
        "`storage`, `cache_path` or `prices` is relative to the `pyproject.toml` that it is in.",
        "## Settings",
        *(_setting(name) for name in Settings.model_fields),
        "## Other environment variables",
        *(
            f"### {group}\n\n" + table(["variable", "meaning"], [(code(name), text) for name, text in known.items()])
            for group, known in VARIABLES.items()
        ),
    )


def _setting(name: str) -> str:
    field = Settings.model_fields[name]
    if not field.description:
        raise MissingTextError(f"the setting {name} has no description")
    default = "unset" if field.default is None else code(getattr(field.default, "value", field.default))
    options = _options(name)
    lines = [
        f"variable {code(f'{ENVIRONMENT_PREFIX}{name.upper()}')}",
        f"option {', '.join(map(code, options))}" if options else "no option",
        f"type: {_kind(field.annotation, field.metadata)}",
        f"default: {default}",
    ]
    return "\n".join([f"### `{name}`\n\n{field.description.replace('``', '`')}\n", *(f"- {line}" for line in lines)])


def _options(name: str) -> list[str]:
    """The options that set it, of all commands."""
    return sorted(
        {
            text
            for command in commands().values()
            for param in command.params
            if param.name == name and isinstance(param, click.Option)
            for text in (*param.opts, *param.secondary_opts)
            if text.startswith("--")
        }
    )


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """A type as people read it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in arguments if each is not type(None))
    if origin is Annotated:
        return _kind(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(map(code, arguments))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(code(each.value) for each in annotation)
    limits = [
        f"{words} {getattr(limit, name):g}"
        for each in metadata
        for limit in (each, *getattr(each, "metadata", ()))
        for name, words in (("ge", "at least"), ("gt", "more than"))
        if getattr(limit, name, None) is not None
    ]
    return ", ".join([{str: "text", int: "whole number", float: "number"}[annotation], *limits])
