"""`doteval init`: what it writes, keeps and refuses. `tests/plugin/test_project_templates.py` runs what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import CommandLine


def test_files_that_are_there_are_kept(doteval_: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mine]\n")
    ran = doteval_("init", str(tmp_path))
    assert ran.code == 0
    assert f"kept   {tmp_path / 'pyproject.toml'}, which was there" in ran.out
    assert (tmp_path / "pyproject.toml").read_text() == "[tool.mine]\n"
    assert (tmp_path / ".github" / "workflows" / "evaluate.yml").is_file()


def test_init_says_where_github_looks_for_the_workflow_of_a_folder(doteval_: CommandLine, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    ran = doteval_("init", str(tmp_path / "evals"))
    assert f"only the workflows in {tmp_path / '.github' / 'workflows'}: move evaluate.yml there" in ran.out
    assert "FOLDER: .\n" in (tmp_path / "evals" / ".github" / "workflows" / "evaluate.yml").read_text()
    assert "move" not in doteval_("init", str(tmp_path)).out


@pytest.mark.parametrize("name", ["eval_mine.py", "conftest.py"])
def test_a_folder_with_evaluations_is_left_alone(doteval_: CommandLine, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine = True\n")
    ran = doteval_("init", str(tmp_path))
    assert ran.code == 2
    assert f"holds evaluations or fixtures already: {name}" in ran.err
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_be_written_to_is_named(doteval_: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = doteval_("init", str(tmp_path / "file" / "evals"))
    assert ran.code == 2
    assert "Not a directory" in ran.err
    assert "Traceback" not in ran.err
