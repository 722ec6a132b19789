"""How pages of documentation are read, compared and run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.pages import Block, Command, Page, Problem, explain, loosely, matches, rewrite, run_page

PAGE = """\
# A page

```python
# eval_sums.py
print("no sum")
```

Save this as `sums.csv`:

<!-- file: sums.csv -->
```csv
question,answer
1 + 1,2
```

```console
$ cat sums.csv
question,answer
...
$ cat <<END > text
> two
> lines
> END
$ false
$ echo $?
1
```

<!-- not run: there is no cluster here -->
```console
$ kubectl get pods
```

```
doteval list
```
"""


def page(tmp_path: Path, text: str = PAGE) -> Page:
    path = tmp_path / "page.md"
    path.write_text(text)
    return Page(path)


def wrong(tmp_path: Path, commands: Commands, console: str) -> list[str]:
    """What is wrong with a page that has one block of commands."""
    written = page(tmp_path, f"```console\n{console}```\n")
    (tmp_path / "run").mkdir(exist_ok=True)
    _, problems = run_page(written, tmp_path / "run", commands, timeout=60)
    return [f"{problem.command.text}: {problem.text}" for problem in problems]


def test_files_and_commands_are_steps_in_their_order(tmp_path: Path) -> None:
    steps = list(page(tmp_path).steps())
    names = [step.file for step in steps if isinstance(step, Block)]
    commands = [step for step in steps if isinstance(step, Command)]
    assert names == ["eval_sums.py", "sums.csv"]
    assert [command.text for command in commands] == [
        "cat sums.csv",
        "cat <<END > text\ntwo\nlines\nEND",
        "false",
        "echo $?",
    ]
    assert [command.expected for command in commands] == [["question,answer", "..."], [], [], ["1"]]


def test_all_commands_are_known_whether_they_are_run_or_not(tmp_path: Path) -> None:
    assert list(page(tmp_path).command_lines())[-2:] == ["kubectl get pods", "doteval list"]


def test_a_page_runs_in_one_shell(tmp_path: Path, commands: Commands) -> None:
    (tmp_path / "run").mkdir()
    ran, problems = run_page(page(tmp_path), tmp_path / "run", commands)
    assert problems == []
    assert [done.code for done in ran] == [0, 0, 1, 0]
    assert (tmp_path / "run" / "text").read_text() == "two\nlines\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("96 rows in 3.67 s", "96 rows in 0.4 s"),
        ("took 4 min 02 s", "took 59.1 s"),
        ("2026-11-30 14:29:33  row 3 on laptop:26646", "2027-01-02 01:00:59  row 3 on laptop:1"),
        ("score    n\n─────────", "score  n\n──────────────"),
        ("1,234 rows/s, 12 MB, key 0a1b2c3d", "99 rows/s, 1.5 GB, key ffffffff0"),
    ],
)
def test_what_differs_by_run_is_compared_loosely(one: str, other: str) -> None:
    assert loosely(one) == loosely(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("96 rows in 3.67 s", "95 rows in 3.67 s"), ("0.750  0.301 – 0.954", "0.750  0.301 – 0.955"), ("a b", "ab")],
)
def test_what_does_not_differ_is_compared_exactly(one: str, other: str) -> None:
    assert loosely(one) != loosely(other)


def test_dots_stand_for_any_lines_and_any_text() -> None:
    assert matches(["...", "b", "..."], ["a", "b", "c"])
    assert matches(["a", "..."], ["a"])
    assert matches(["key ... of 3"], ["key x y of 3"])
    assert not matches(["...", "d"], ["a", "b", "c"])
    assert not matches(["key ... of 4"], ["key x y of 3"])
    assert not matches([], ["a"])
    assert not matches(["a"], [])


def test_all_numbers_of_a_block_may_differ(tmp_path: Path) -> None:
    text = "<!-- numbers differ by run -->\n```console\n$ count\n3 of 1,204 rows\n```\n"
    (command,) = (step for step in page(tmp_path, text).steps() if isinstance(step, Command))
    assert command.numbers_differ
    assert matches(command.expected, ["77 of 1 rows"], numbers_differ=True)
    assert not matches(command.expected, ["77 of 1 row"], numbers_differ=True)
    assert not matches(command.expected, ["77 of 1 rows"])


def test_an_output_that_differs_is_shown_beside_the_expected_one(tmp_path: Path, commands: Commands) -> None:
    (tmp_path / "run").mkdir()
    written = page(tmp_path, "```console\n$ printf 'a\\nb\\n'\na\nc\n$ echo d\nd\n```\n")
    _, problems = run_page(written, tmp_path / "run", commands)
    explained = explain(written, problems)
    assert explained.splitlines()[0] == "page.md:2: $ printf 'a\\nb\\n'"
    assert explained.splitlines()[-1].split() == ["c", "|", "b"]
    rewrite(written, problems)
    assert written.path.read_text() == "```console\n$ printf 'a\\nb\\n'\na\nb\n$ echo d\nd\n```\n"


def test_rewriting_leaves_out_what_each_run_has_differently(tmp_path: Path) -> None:
    written = page(tmp_path, "```console\n$ pytest\n```\n")
    (command,) = (step for step in written.steps() if isinstance(step, Command))
    output = [
        "note",
        "===== test session starts =====",
        "plugins: many",
        "collected 1 item",
        "",
        "== 1 passed in 1 s ==",
        "eval_a: 0/? rows",
        "eval_a: 3/12 rows",
        "done",
    ]
    rewrite(written, [Problem(command, "", output)])
    assert written.path.read_text().splitlines()[1:-1] == ["$ pytest", "note", "...", *output[3:6], "...", "done"]


def test_an_exit_code_is_shown_or_an_error(tmp_path: Path, commands: Commands) -> None:
    assert wrong(tmp_path, commands, "$ (exit 3)\n$ echo $?\n3\n") == []
    assert wrong(tmp_path, commands, "$ (exit 3)\n") == ["(exit 3):   exit code 3, which the page does not show"]
    assert wrong(tmp_path, commands, "$ exit 3\n$ true\n") == ["exit 3:   it did not end in time, or ended the shell"]


def test_programs_are_forked_and_get_what_a_shell_gives(tmp_path: Path, commands: Commands) -> None:
    """Streams, arguments, environment, directory, exit codes and signals; and a port of the page's own."""
    (tmp_path / "run" / "below").mkdir(parents=True)
    (tmp_path / "run" / "below" / "shown.py").write_text(
        "import os, pathlib, signal, sys\n"
        "if sys.argv[1] == 'wait':\n"
        "    signal.signal(signal.SIGTERM, lambda *arguments: sys.exit(5))\n"
        "    pathlib.Path(sys.argv[2]).touch()\n"
        "    signal.pause()\n"
        "print(sys.stdin.read(), sys.argv[1:], os.environ['WORD'], pathlib.Path.cwd().name)\n"
        "sys.exit(7)\n"
    )
    until = "while [ ! -e {0} ]; do sleep 0.02; done"
    console = (
        "$ cd below; export WORD=word\n"
        "$ printf in | python -m shown 'two words' 127.0.0.1:8000 8000.0\n"
        "in ['two words', '127.0.0.1:8000', '8000.0'] word below\n"
        "$ echo $?\n7\n"
        f"$ python -m shown wait one & {until.format('one')}; kill $!; wait $!\n"
        "$ echo $?\n5\n"
        f"$ python -m shown wait two & {until.format('two')}; kill -9 $!; wait $! 2> killed\n"
        "$ echo $?\n137\n"
        "$ doteval --version | cut -d' ' -f1\ndoteval\n"
    )
    assert wrong(tmp_path, commands, console) == []
