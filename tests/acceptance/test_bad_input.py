"""A user's mistake ends a command with an exit code and a message of one screen, without a traceback."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.project import Project, leftover_processes
from tests.support.troubleshooting import assert_shown

GOOD = """
from doteval import Score, foreach
@foreach("a,b", [(1, 2), (3, 4)])
def eval_good(a, b):
    return Score("ok", True, ["accuracy"])
"""


def refused(project: Project, code: int, *words: str, arguments: tuple[str, ...] = ("eval_it.py",)) -> str:
    """Submit; check the exit code, that the message contains the words, and that it fits one screen. Returns stderr."""
    done = project.run("submit", *arguments, "--experiment", "x", "--workers", "1", check=None)
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    for word in words:
        assert word in done.stderr, output
    assert "Traceback (most recent call last)" not in output
    assert len(output.splitlines()) <= 24
    assert leftover_processes(project.path) == []
    return done.stderr


OWN_STORE = GOOD.replace("(3, 4)])", '(3, 4)], storage="sqlite://own/results.db")')


def test_evaluations_with_different_result_stores(project: Project) -> None:
    project.write("eval_it.py", OWN_STORE + GOOD.replace("eval_good", "eval_other"))
    refused(project, 2, "different result stores", "sqlite://own/results.db")
    # Each by itself is valid.
    done = project.run("submit", "eval_it.py::eval_good", "--experiment", "x", "--workers", "1")
    assert "own/results.db" in done.stdout
    assert project.path.joinpath("own", "results.db").is_file()
    assert not project.path.joinpath(".doteval", "doteval.db").exists()


def test_a_missing_file(project: Project) -> None:
    refused(project, 2, "eval_missing.py", arguments=("eval_missing.py",))


def test_a_missing_evaluation(project: Project) -> None:
    project.write("eval_it.py", GOOD)
    refused(project, 2, "eval_it.py::eval_other", arguments=("eval_it.py::eval_other",))


def test_a_file_without_evaluations(project: Project) -> None:
    project.write("eval_it.py", "def eval_undecorated():\n    pass\n")
    assert_shown("evaluation-not-found", refused(project, 2, "no evaluation in eval_it.py", "@foreach"))


def test_a_filter_that_matches_no_evaluation(project: Project) -> None:
    project.write("eval_it.py", GOOD)
    said = refused(project, 2, arguments=("eval_it.py", "-k", "bad"))
    assert "none of 1 evaluation in eval_it.py matches -k 'bad'" in said


def test_an_import_error_names_file_and_line(project: Project) -> None:
    project.write("eval_it.py", "\nimport no_such_module_anywhere\n" + GOOD)
    assert_shown("file-not-imported", refused(project, 2, "eval_it.py:7", "no_such_module_anywhere"))
    # The same if one of its evaluations is named, which cannot be found then.
    refused(project, 2, "eval_it.py:7", "no_such_module_anywhere", arguments=("eval_it.py::eval_good",))


def test_ctrl_c_while_a_file_is_imported(project: Project) -> None:
    project.write("eval_it.py", "raise KeyboardInterrupt\n" + GOOD)
    refused(project, 130, "To continue: doteval submit eval_it.py --experiment x")


def test_a_syntax_error_names_file_and_line(project: Project) -> None:
    project.write("eval_it.py", GOOD + "\ndef broken(:\n")
    refused(project, 2, "eval_it.py", "line 12")


def test_a_column_that_is_no_parameter_of_the_function(project: Project) -> None:
    project.write("eval_it.py", GOOD.replace('"a,b"', '"a,label"'))
    assert_shown("missing-column", refused(project, 2, "'label'", "eval_good(a, b)"))


def test_a_column_missing_from_the_file(project: Project) -> None:
    project.write("eval_it.py", GOOD.replace("[(1, 2), (3, 4)]", '"data.csv"'))
    project.write("data.csv", "a,bee\n1,2\n")
    refused(project, 2, "'b'", "bee", "data.csv")


def test_a_value_that_cannot_be_stored(project: Project) -> None:
    project.write("eval_it.py", GOOD.replace("(3, 4)", "(3, {'deep': [object()]})"))
    assert_shown("value-not-stored", refused(project, 2, "row 1", "'b'", "deep", "object"))


def test_an_empty_dataset(project: Project) -> None:
    project.write("eval_it.py", GOOD.replace("[(1, 2), (3, 4)]", "[]"))
    refused(project, 2, "eval_good", "empty")


def test_a_changed_dataset_and_changed_code(project: Project) -> None:
    project.write("data.csv", "a,b\n1,2\n3,4\n")
    source = GOOD.replace("[(1, 2), (3, 4)]", '"data.csv"')
    project.write("eval_it.py", source)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    project.write("data.csv", "a,b\n1,2\n3,5\n")
    refused(project, 2, "row 1", "--allow-changed")
    project.write("data.csv", "a,b\n1,2\n3,4\n")
    project.write("eval_it.py", source + "# a change\n")
    assert_shown("changed-since", refused(project, 2, "eval_it.py has changed", "--allow-changed"))
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--allow-changed")


def test_an_unreachable_broker_is_named_without_its_password(project: Project) -> None:
    project.write("eval_it.py", GOOD)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        broker = f"redis://user:hush-hush@127.0.0.1:{port}/0"
        project.environment["DOTEVAL_BROKER"] = broker
        done = project.run("submit", "eval_it.py", "--experiment", "x", check=3)
        served = project.run("worker", ".", check=3)
    assert_shown("broker-unreachable", done.stderr)
    for message in (done.stderr, served.stderr):
        assert f"127.0.0.1:{port}" in message
        assert "hush-hush" not in message
        assert "Traceback" not in message


def test_an_unreachable_store_is_named_without_its_password(project: Project) -> None:
    project.write("eval_it.py", GOOD)
    project.environment["DOTEVAL_STORAGE"] = "postgresql://user:hush-hush@127.0.0.1:1/db"
    said = refused(project, 4, "127.0.0.1:1")
    assert "hush-hush" not in said
    assert_shown("store-unreachable", said)


def test_a_read_only_store(project: Project) -> None:
    project.write("eval_it.py", GOOD)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    if os.geteuid() == 0:
        # Root may write to read-only files, but it cannot create a file below a file.
        (project.path / "file").write_text("")
        project.environment["DOTEVAL_STORAGE"] = str(project.path / "file" / "results.db")
        refused(project, 4, "results.db")
        return
    _make_read_only(project.path / ".doteval")
    refused(project, 4, "doteval.db")


def _make_read_only(directory: Path) -> None:
    for path in (*directory.iterdir(), directory):
        path.chmod(0o500 if path.is_dir() else 0o400)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--detach",), "--broker"),
        (("--samples", "0"), "--samples"),
        (("--rows-per-task", "many"), "--rows-per-task"),
        (("--storage", "mysql://host/db"), "mysql"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_invalid_options(project: Project, arguments: tuple[str, ...], word: str) -> None:
    project.write("eval_it.py", GOOD)
    done = project.run("submit", "eval_it.py", "--experiment", "x", *arguments, check=None)
    assert done.returncode in (2, 4)
    assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        ("pytest_configure(config)", "the plugin broken_plugin ("),
        ("pytest_addoption(parser)", "the plugin broken_plugin ("),
        ("pytest_sessionstart(session)", "conftest.py:2"),
    ],
)
def test_a_plugin_that_raises_while_pytest_starts(project: Project, hook: str, place: str) -> None:
    name = "conftest.py" if "conftest" in place else "broken_plugin.py"
    # Without the line that lets it log events.
    (project.path / name).write_text(f"def {hook}:\n    raise LookupError('no licence found')\n")
    if name != "conftest.py":
        (project.path / "pytest.ini").write_text("[pytest]\naddopts = -p broken_plugin\n")
        project.environment["PYTHONPATH"] = str(project.path)
    project.write("eval_it.py", GOOD)
    said = refused(project, 2, place, "raised while pytest started: LookupError: no licence found", "-p no:NAME")
    if hook == "pytest_configure(config)":
        assert_shown("plugin-fails", said)
