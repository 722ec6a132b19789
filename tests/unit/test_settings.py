"""The sources of settings, and which one wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from doteval.errors import UsageError
from doteval.settings import Settings, find_table, load_settings
from doteval.store.url import locate


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory without settings around it the current one."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DOTEVAL_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_table(project: Path, lines: str) -> None:
    (project / "pyproject.toml").write_text(f"[tool.doteval]\n{lines}\n", encoding="utf-8")


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.storage, settings.broker, settings.queue) == (None, None, "doteval")
    assert (settings.workers, settings.concurrency, settings.rows_per_task) == (None, None, "auto")


def test_order_of_sources(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(project, 'queue = "table"\nworkers = 3\nconcurrency = 4')
    monkeypatch.setenv("DOTEVAL_QUEUE", "environment")
    monkeypatch.setenv("DOTEVAL_WORKERS", "5")
    settings = load_settings(queue="option", workers=None)
    assert (settings.queue, settings.workers, settings.concurrency) == ("option", 5, 4)


def test_table_of_the_nearest_project_that_has_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(project, "workers = 3")
    inner = project / "inner" / "deep"
    inner.mkdir(parents=True)
    (project / "inner" / "pyproject.toml").write_text('[project]\nname = "inner"\n', encoding="utf-8")
    monkeypatch.chdir(inner)
    assert load_settings().workers == 3
    found = find_table(inner)
    assert found is not None
    assert found[0] == project / "pyproject.toml"


def test_keys_may_have_dashes(project: Path) -> None:
    write_table(project, "rows-per-task = 7")
    assert load_settings().rows_per_task == 7


def test_an_empty_variable_is_no_setting(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(project, "workers = 3")
    monkeypatch.setenv("DOTEVAL_WORKERS", "")
    assert load_settings().workers == 3


@pytest.mark.parametrize(
    "storage",
    ["results.db", "kept/results.db", "sqlite://results.db", "sqlite:///results.db", "sqlite://kept/results.db"],
)
def test_relative_storage_belongs_to_the_file(project: Path, monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    write_table(project, f'storage = "{storage}"')
    expected = locate(storage).path
    (project / "inner").mkdir()
    monkeypatch.chdir(project / "inner")
    assert locate(load_settings().storage).path == expected


@pytest.mark.parametrize("storage", ["/a/results.db", "sqlite:///a/results.db", "postgresql://ann@host/results"])
def test_absolute_storage_stays(project: Path, storage: str) -> None:
    write_table(project, f'storage = "{storage}"')
    assert load_settings().storage == storage


@pytest.mark.parametrize("storage", ["results.db", "sqlite://results.db"])
def test_storage_of_the_environment_is_not_changed(monkeypatch: pytest.MonkeyPatch, storage: str) -> None:
    monkeypatch.setenv("DOTEVAL_STORAGE", storage)
    assert load_settings().storage == storage


def test_unknown_key_names_the_nearest(project: Path) -> None:
    write_table(project, 'brocker = "redis://:hunter2@host"')
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert "'brocker'" in caught.value.message
    assert str(project / "pyproject.toml") in caught.value.message
    assert "'broker'" in (caught.value.remedy or "")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "variables", "options", "where"),
    [
        ("workers = 0", {}, {}, "[tool.doteval]"),
        ('broker = ["hunter2"]', {}, {}, "[tool.doteval]"),
        ("", {"DOTEVAL_WORKERS": "hunter2"}, {}, "DOTEVAL_WORKERS"),
        ("workers = 2", {"DOTEVAL_WORKERS": "hunter2"}, {}, "DOTEVAL_WORKERS"),
        ("", {"DOTEVAL_ROWS_PER_TASK": "hunter2"}, {}, "DOTEVAL_ROWS_PER_TASK"),
        ("workers = 2", {}, {"workers": 0}, "--workers"),
    ],
)
def test_the_error_of_a_wrong_value_names_its_source_and_hides_the_value(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    variables: dict[str, str],
    options: dict[str, int],
    where: str,
) -> None:
    write_table(project, lines)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        load_settings(**options)
    assert where in caught.value.message
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", ["[tool.doteval", "tool.doteval = 3"])
def test_a_broken_file_is_named(project: Path, content: str) -> None:
    (project / "pyproject.toml").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        load_settings()
