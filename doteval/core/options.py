"""Declares each option of a run once; the command line of `doteval submit` and that of pytest are made from it.

An option is a field of a dataclass, declared with `option`. `doteval.cli.options` turns the declarations into options
of click, `doteval.local.options` into options of pytest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

_KEY = "option"


class RunCommand(StrEnum):
    """The commands that run rows and share options."""

    SUBMIT = "submit"
    PYTEST = "pytest"


@dataclass(frozen=True, slots=True)
class TextValue:
    """Any text."""


@dataclass(frozen=True, slots=True)
class TextsValue:
    """Any number of texts: the option may be given several times."""


@dataclass(frozen=True, slots=True)
class CountValue:
    """A whole number of at least `least`."""

    least: int = 1


@dataclass(frozen=True, slots=True)
class AmountValue:
    """A finite number above 0, or of at least 0 with `zero`. `unit` and `example` are for error messages."""

    unit: str
    example: str
    zero: bool = False


@dataclass(frozen=True, slots=True)
class DurationValue:
    """A duration in seconds, written as ``60s``, ``30m`` or ``2h``."""


@dataclass(frozen=True, slots=True)
class ReducerValue:
    """The name of a reducer, as `doteval.core.reducer_names` knows it."""


@dataclass(frozen=True, slots=True)
class ChoiceValue:
    """One of several words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FlagValue:
    """True if the flag is given."""


@dataclass(frozen=True, slots=True)
class FlagChoice:
    """A flag that gives its option the value `value`."""

    flag: str
    value: str
    help: str


OptionValue = (
    TextValue
    | TextsValue
    | CountValue
    | AmountValue
    | DurationValue
    | ReducerValue
    | ChoiceValue
    | FlagValue
    | tuple[FlagChoice, ...]
)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a command line.

    help: a sentence without its full stop.
    shown_default: the default as the help shows it, None to show none.

    An option whose value is several `FlagChoice` has one flag for each of them, each with its own help.
    """

    name: str
    default: Any
    value: OptionValue
    help: str
    metavar: str | None
    shown_default: str | None
    commands: frozenset[RunCommand]

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag that the option has on a command line."""
        return tuple(each.flag for each in self.value) if isinstance(self.value, tuple) else (self.flag,)


def option(
    default: Any,
    value: OptionValue,
    help: str = "",  # noqa: A002 - as click and argparse call it
    *,
    metavar: str | None = None,
    shown_default: str | None = None,
    commands: tuple[RunCommand, ...] = tuple(RunCommand),
) -> Any:
    """A dataclass field that is an option of `commands`. Its flag is the field's name with dashes."""
    return field(default=default, metadata={_KEY: (value, help, metavar, shown_default, frozenset(commands))})


def options_of(declaration: type, command: RunCommand | None = None) -> list[Option]:
    """The options that a dataclass declares, in order; those of one command only, if it is named.

    >>> from doteval.core.run_config import RunTarget
    >>> [each.flag for each in options_of(RunTarget, RunCommand.PYTEST)]
    ['--experiment', '--samples', '--storage', '--epochs', '--allow-changed', '--tag', '--note']
    """
    found = [Option(each.name, each.default, *each.metadata[_KEY]) for each in fields(declaration) if each.metadata]
    return [each for each in found if command is None or command in each.commands]


def given_values(declaration: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are options of a dataclass and not None. Lists become tuples."""
    names = {each.name for each in options_of(declaration)}
    given = {name: value for name, value in values.items() if name in names and value is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
