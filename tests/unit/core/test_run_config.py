"""The run configuration: its options reach both command lines, and its stored form keeps every value."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from doteval.core.client_config import CacheChoice, CacheMode
from doteval.core.options import Option, RunCommand, options_of
from doteval.core.run_config import RUN_CONFIG_VERSION, RunConfig, RunTarget
from doteval.errors import StoreVersionError
from tests.support.commands import Commands
from tests.support.run_config import FULL

OPTIONS = [*options_of(RunTarget), *options_of(RunConfig)]


@pytest.fixture(scope="module")
def shown_help(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> dict[RunCommand, str]:
    """The help of the two commands, each as one line."""
    directory = tmp_path_factory.mktemp("help")
    shown = {}
    for command, (module, *words) in {
        RunCommand.SUBMIT: ("doteval", "submit", "--help"),
        RunCommand.PYTEST: ("pytest", "--help"),
    }.items():
        ran = commands.run(module, words, directory=directory, environment={"COLUMNS": "500"}, timeout=180)
        assert ran.returncode == 0, ran.stderr
        shown[command] = re.sub(r"\s+", " ", ran.stdout)
    return shown


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_is_on_the_command_lines_it_is_declared_for(
    option: Option, shown_help: dict[RunCommand, str]
) -> None:
    assert option.commands
    for command in RunCommand:
        text = shown_help[command]
        for flag in option.flags:
            assert bool(re.search(rf"(?<![\w-]){flag}(?![\w-])", text)) == (command in option.commands), flag
        if command in option.commands and option.help:
            assert option.help.lower() in text.lower()


def test_options_that_both_commands_have() -> None:
    both = [option.name for option in OPTIONS if option.commands == set(RunCommand)]
    assert both == [
        *("experiment", "samples", "storage", "epochs", "allow_changed", "tag", "note"),
        *("max_retries", "retry_delay", "row_timeout", "max_requests", "max_tokens", "max_cost", "cache", "reducer"),
        *("journal", "replay"),
    ]


def test_the_stored_form_keeps_every_value() -> None:
    defaults = RunConfig()
    assert all(getattr(FULL, each.name) != getattr(defaults, each.name) for each in fields(RunConfig))
    for config in (FULL, defaults):
        assert RunConfig.from_json(config.to_json()) == config
    assert FULL.to_json()["version"] == RUN_CONFIG_VERSION


def test_a_stored_form_that_lacks_a_newer_option_gets_its_default() -> None:
    stored = FULL.to_json()
    del stored["max_crashes"]
    assert RunConfig.from_json(stored) == replace(FULL, max_crashes=2)


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"version": 2}, "has version 2"), ({"version": None}, "has version None"), ({"colour": 1}, "holds colour")],
)
def test_the_stored_form_of_a_newer_release_is_refused(changes: dict[str, object], what: str) -> None:
    with pytest.raises(StoreVersionError, match=f"{what}, which this doteval does not know") as raised:
        RunConfig.from_json({**FULL.to_json(), **changes})
    assert "pip install --upgrade doteval" in str(raised.value.remedy)


def test_values_of_options_become_a_configuration() -> None:
    choice = CacheChoice(CacheMode.ON)
    values = {"max_retries": 7, "row_timeout": None, "cache": "on", "samples": 5, "workers": 2}
    assert RunConfig.from_options(values, cache=choice) == RunConfig(max_retries=7, cache=choice)
    assert RunTarget.from_options(values) == RunTarget(samples=5)


@pytest.mark.parametrize(
    ("config", "of_process", "expected"),
    [
        (RunConfig(), None, None),
        (RunConfig(), 5, 5),
        (RunConfig(concurrency=10), None, 10),
        (RunConfig(concurrency=10), 5, 5),
        (RunConfig(concurrency=10, concurrency_is_own=True), 5, 10),
    ],
)
def test_the_decorator_decides_how_many_calls_run_at_once_before_the_command_does(
    config: RunConfig, of_process: int | None, expected: int | None
) -> None:
    assert config.concurrency_in(of_process) == expected
