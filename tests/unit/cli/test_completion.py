"""Completion in a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import CommandLine, fill

_COMPLETE = """
source "$1"; shift
COMP_WORDS=(doteval "$@"); COMP_CWORD=$#
_doteval_completion doteval
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(script: Path, *words: str) -> list[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-c", _COMPLETE, "bash", str(script), *words],
        env=environment,
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stderr == ""
    return ran.stdout.split()


def test_bash_completes_commands_options_and_experiments(doteval_: CommandLine, tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash")
    script = tmp_path / "doteval.sh"
    script.write_text(doteval_("completion", "bash").out)
    assert completed(script, "comp") == ["compare", "completion"]
    assert completed(script, "show", "--fa") == ["--failed"]
    # Without a store there are no names, and no error in the middle of a line.
    assert completed(script, "show", "al") == []
    store = tmp_path / ".doteval" / "doteval.db"
    store.parent.mkdir()
    fill(store)
    assert completed(script, "show", "al") == ["alpha"]
    assert completed(script, "show", "x") == []
    # Fields, of which the last one is not finished.
    assert completed(script, "show", "alpha", "--columns", "index,row.te") == ["index,row.text"]
    assert completed(script, "show", "alpha", "--sort", "sec") == ["seconds"]
    assert completed(script, "show", "nobody", "--sort", "sec") == ["seconds"]


@pytest.mark.parametrize(
    ("shell", "words"), [("zsh", "#compdef doteval"), ("fish", "complete --no-files --command doteval")]
)
def test_other_shells_have_a_script(doteval_: CommandLine, shell: str, words: str) -> None:
    ran = doteval_("completion", shell)
    assert ran.code == 0
    assert words in ran.out
