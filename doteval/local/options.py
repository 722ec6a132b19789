"""The options that evaluations add to pytest's command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from doteval.concurrency import Adaptive
from doteval.core.budgets import Budget, check_prices
from doteval.core.client_config import ClientConfig
from doteval.errors import DotEvalError
from doteval.runner.calls import DEFAULT_RETRIES, DEFAULT_RETRY_DELAY, CallPolicy

if TYPE_CHECKING:
    from doteval.analysis.thresholds import Threshold

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """What pytest's command line said.

    `samples` is how many rows of each dataset to run, the first ones; `epochs` how often each; None for all
    and once. `max_errors` is how many rows of an evaluation may fail before it is stopped, None for any number.
    `budget` is what the experiment may spend in all.
    """

    experiment: str | None = None
    storage: str | None = None
    samples: int | None = None
    epochs: int = 1
    concurrency: int | Adaptive | None = None
    policy: CallPolicy = field(default_factory=CallPolicy)
    max_errors: int | None = None
    thresholds: tuple[Threshold, ...] = ()
    budget: Budget = field(default_factory=Budget)
    allow_changed: bool = False
    client_config: ClientConfig = field(default_factory=ClientConfig)


def add_options(parser: pytest.Parser) -> None:
    """Add the options. Their values are numbers and texts only, since pytest-xdist sends them to its workers."""
    group = parser.getgroup("doteval", "evaluations")
    add = group.addoption
    add("--experiment", metavar="NAME", help="keep results under this name, and go on with what it began")
    add("--samples", type=_count("--samples", 1), metavar="N", help="run the first N rows of each dataset")
    add("--epochs", type=_count("--epochs", 1), default=1, metavar="N", help="run every row N times (default: 1)")
    add("--storage", metavar="URL", help="where results are kept (default: .doteval/doteval.db)")
    for flag, mode, text in (
        ("--cache", "on", "share replies to repeatable requests (default: clients made with cache=True)"),
        ("--no-cache", "off", "share no replies, whatever clients ask for"),
        ("--refresh-cache", "refresh", "share replies, but ask anew for those from before now"),
    ):
        add(flag, action="store_const", const=mode, dest="doteval_cache", help=text)
    add(
        "--concurrent",
        type=_concurrent,
        nargs="?",
        const=AUTO,
        metavar="N|auto",
        help="rows in flight (default: 10 if async, else 1); auto finds out how many pay off",
    )
    add(
        "--max-retries",
        type=_count("--max-retries", 0),
        default=DEFAULT_RETRIES,
        metavar="N",
        help=f"tries more after connection errors (default: {DEFAULT_RETRIES})",
    )
    add(
        "--retry-delay",
        type=_seconds("--retry-delay", zero=True),
        default=DEFAULT_RETRY_DELAY,
        metavar="S",
        help=f"seconds before the first of them, doubled for each further one (default: {DEFAULT_RETRY_DELAY:g})",
    )
    add("--row-timeout", type=_seconds("--row-timeout"), metavar="S", help="seconds that a row may take")
    add(
        "--max-errors",
        type=_count("--max-errors", 0),
        metavar="N",
        help="stop an evaluation, as failed, when more than N rows have failed",
    )
    add(
        "--max-requests",
        type=_count("--max-requests", 1),
        metavar="N",
        help="begin no further row once the experiment has sent N requests in all",
    )
    add("--max-tokens", type=_count("--max-tokens", 1), metavar="N", help="the same for N tokens, in and out")
    add("--max-cost", type=_dollars, metavar="X", help="the same for X US dollars; needs a price table")
    add(
        "--fail-under",
        action="append",
        default=[],
        metavar="[EVALUATION:]SCORE.METRIC=VALUE",
        help="an evaluation fails if this metric is less than VALUE; may be given several times",
    )
    add("--allow-changed", action="store_true", help="go on although the code or dataset has changed")


def check_options(config: pytest.Config) -> None:
    """Refuse what the parser could not: before anything is collected.

    Raises pytest.UsageError.
    """
    _thresholds(config)


def local_options(config: pytest.Config, *, named: str | None = None) -> LocalOptions:
    """The options of pytest's command line, completed from [tool.doteval] and DOTEVAL_*.

    `named` is the experiment's name where the command line gives none.

    Raises pytest.UsageError.
    """
    from doteval.settings import load_settings

    concurrent = config.getoption("concurrent")
    automatic = concurrent == AUTO
    try:
        settings = load_settings(
            storage=config.getoption("storage"),
            concurrency=None if automatic else concurrent,
            cache=config.getoption("doteval_cache"),
        )
        budget = Budget(config.getoption("max_requests"), config.getoption("max_tokens"), config.getoption("max_cost"))
        check_prices(budget, settings.prices)
    except DotEvalError as error:
        raise pytest.UsageError(str(error)) from error
    return LocalOptions(
        experiment=config.getoption("experiment") or named,
        storage=settings.storage,
        samples=config.getoption("samples"),
        epochs=config.getoption("epochs"),
        concurrency=Adaptive() if automatic else settings.concurrency,
        policy=CallPolicy(
            config.getoption("max_retries"), config.getoption("retry_delay"), config.getoption("row_timeout")
        ),
        max_errors=config.getoption("max_errors"),
        thresholds=_thresholds(config),
        budget=budget,
        allow_changed=config.getoption("allow_changed"),
        client_config=settings.client_config(),
    )


def _thresholds(config: pytest.Config) -> tuple[Threshold, ...]:
    texts = config.getoption("fail_under")
    if not texts:
        return ()
    from doteval.analysis.thresholds import Threshold

    try:
        return tuple(Threshold.parse(text) for text in texts)
    except DotEvalError as error:
        raise pytest.UsageError(str(error)) from error


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


def _seconds(option: str, *, zero: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (value > 0 or (zero and value == 0)) or math.isinf(value):
            raise pytest.UsageError(
                f"{option} takes a number of seconds{'' if zero else ' above 0'}, not {text!r}: for example {option} 30"
            )
        return value

    return parse


def _dollars(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise pytest.UsageError(f"--max-cost takes a number of dollars above 0, not {text!r}: for example --max-cost 5")
    return value


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
