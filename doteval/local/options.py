"""The options that evaluations add to pytest's command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from doteval.concurrency import Adaptive
from doteval.core.client_config import ClientConfig
from doteval.core.options import (
    AmountValue,
    ChoiceValue,
    CountValue,
    FlagValue,
    Option,
    OptionValue,
    ReducerValue,
    RunCommand,
    TextsValue,
    TextValue,
    options_of,
)
from doteval.core.reducer_names import ReducerName
from doteval.core.run_config import RunConfig, RunTarget
from doteval.errors import DotEvalError, UsageError

if TYPE_CHECKING:
    from doteval.analysis.thresholds import Threshold

AUTO = "auto"
_OPTIONS = [*options_of(RunTarget, RunCommand.PYTEST), *options_of(RunConfig, RunCommand.PYTEST)]


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """The options of pytest's command line.

    max_errors: how many rows of an evaluation may fail before it is stopped, None for any number
    baseline: the experiment that no score may be worse than, by more than `max_drop`
    drain_seconds: how long rows in flight in threads may take to end after Ctrl-C
    """

    target: RunTarget = field(default_factory=RunTarget)
    config: RunConfig = field(default_factory=RunConfig)
    concurrency: int | Adaptive | None = None
    max_errors: int | None = None
    thresholds: tuple[Threshold, ...] = ()
    baseline: str | None = None
    max_drop: float | None = None
    client_config: ClientConfig = field(default_factory=ClientConfig)
    drain_seconds: float = math.inf


def add_options(parser: pytest.Parser) -> None:
    """Add the options. Their values are numbers and texts only, since pytest-xdist sends them to its workers."""
    group = parser.getgroup("doteval", "evaluations")
    for option in _OPTIONS:
        _add(group, option)
    add = group.addoption
    add(
        "--concurrent",
        type=_concurrent,
        nargs="?",
        const=AUTO,
        metavar="N|auto",
        help="rows in flight (default: 10 if async, else 1); auto finds out how many pay off",
    )
    add(
        "--max-errors",
        type=_count("--max-errors", 0),
        metavar="N",
        help="stop an evaluation, as failed, when more than N rows have failed",
    )
    add(
        "--fail-under",
        action="append",
        default=[],
        metavar="[EVALUATION:]SCORE.METRIC=VALUE",
        help="an evaluation fails if this metric is less than VALUE; may be given several times",
    )
    add(
        "--fail-if-worse",
        metavar="BASELINE",
        help="an evaluation fails if a score is worse than in this experiment, as doteval compare judges it; "
        "the word `baseline` is the one of doteval baseline",
    )
    add(
        "--max-drop",
        type=_drop,
        metavar="X",
        help="the drop that --fail-if-worse allows, as in 0.01 for one point",
    )


def _add(group: pytest.OptionGroup, option: Option) -> None:
    """Add an option that is declared in doteval.core to pytest's command line."""
    default = "" if option.shown_default is None else f" (default: {option.shown_default})"
    if isinstance(option.value, tuple):
        for number, choice in enumerate(option.value):
            text = f"{_beginning_small(choice.help)}{'' if number else default}"
            group.addoption(choice.flag, action="store_const", const=choice.value, dest=_dest(option), help=text)
        return
    kind: dict[str, Any] = {"default": option.default, "dest": _dest(option)}
    if isinstance(option.value, FlagValue):
        kind["action"] = "store_true"
    elif isinstance(option.value, TextsValue):
        kind |= {"action": "append", "default": [], "metavar": option.metavar}
    else:
        if isinstance(option.value, ChoiceValue):
            kind["default"] = str(option.default)
        kind |= {"type": _parser(option.flag, option.value), "metavar": option.metavar}
    group.addoption(option.flag, help=f"{_beginning_small(option.help)}{default}", **kind)


def _dest(option: Option) -> str:
    """The name of an option's value. One of pytest's own plugins may have an attribute `cache`."""
    return "doteval_cache" if option.name == "cache" else option.name


def _beginning_small(text: str) -> str:
    """The help text as pytest writes its own."""
    return text[:1].lower() + text[1:]


def check_options(config: pytest.Config) -> None:
    """Check what the parser could not, before anything is collected.

    Raises pytest.UsageError: when a threshold cannot be read, or --max-drop has nothing to allow
    """
    _thresholds(config)
    if config.getoption("max_drop") is not None and config.getoption("fail_if_worse") is None:
        raise pytest.UsageError("--max-drop says which drop --fail-if-worse allows. Give both.")


def local_options(config: pytest.Config, *, named: str | None = None) -> LocalOptions:
    """The options of pytest's command line, completed from [tool.doteval] and DOTEVAL_*.

    `named` is the experiment's name where the command line gives none.

    Raises pytest.UsageError.
    """
    from doteval.settings import load_settings, settings_among

    concurrent = config.getoption("concurrent")
    automatic = concurrent == AUTO
    values = {option.name: config.getoption(_dest(option)) for option in _OPTIONS}
    run_config = RunConfig.from_options(values)
    try:
        settings = load_settings(
            **settings_among(values),
            concurrency=None if automatic else concurrent,
        )
        target = RunTarget.from_options(values)
    except DotEvalError as error:
        raise pytest.UsageError(error.with_section()) from error
    return LocalOptions(
        target=replace(target, experiment=target.experiment or named, storage=settings.storage),
        config=run_config,
        concurrency=Adaptive() if automatic else settings.concurrency,
        max_errors=config.getoption("max_errors"),
        thresholds=_thresholds(config),
        baseline=config.getoption("fail_if_worse"),
        max_drop=config.getoption("max_drop"),
        client_config=settings.client_config(),
        drain_seconds=settings.drain_timeout,
    )


def _thresholds(config: pytest.Config) -> tuple[Threshold, ...]:
    texts = config.getoption("fail_under")
    if not texts:
        return ()
    from doteval.analysis.thresholds import Threshold

    try:
        return tuple(Threshold.parse(text) for text in texts)
    except DotEvalError as error:
        raise pytest.UsageError(error.with_section()) from error


def _parser(flag: str, value: OptionValue) -> Callable[[str], Any]:
    if isinstance(value, CountValue):
        return _count(flag, value.least)
    if isinstance(value, AmountValue):
        return _amount(flag, value)
    if isinstance(value, ReducerValue):
        return _reducer
    if isinstance(value, ChoiceValue):
        return _choice(flag, value.words)
    assert isinstance(value, TextValue)
    return str


def _choice(option: str, words: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise pytest.UsageError(f"{option} takes {', '.join(words[:-1])} or {words[-1]}, not {text!r}")
        return text

    return parse


def _reducer(text: str) -> str:
    try:
        return str(ReducerName.parse(text))
    except UsageError as error:
        raise pytest.UsageError(error.with_section()) from error


def _drop(text: str) -> float:
    try:
        drop = float(text)
    except ValueError:
        drop = math.nan
    # NaN is not at least 0 either.
    if not 0 <= drop < math.inf:
        raise pytest.UsageError(f"--max-drop takes a number from 0 up, not {text!r}")
    return drop


def _count(option: str, least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise pytest.UsageError(f"{option} takes a whole number of at least {least}, not {text!r}")
        return value

    return parse


def _amount(option: str, kind: AmountValue) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (value > 0 or (kind.zero and value == 0)) or math.isinf(value):
            raise pytest.UsageError(
                f"{option} takes a number of {kind.unit}{'' if kind.zero else ' above 0'}, not {text!r}: "
                f"for example {option} {kind.example}"
            )
        return value

    return parse


def _concurrent(text: str) -> int | str:
    if text == AUTO:
        return AUTO
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise pytest.UsageError(
            f"--concurrent takes a number of rows of at least 1, or auto, not {text!r}: "
            "for example --concurrent 20, or --concurrent=auto before the name of a file"
        )
    return value
