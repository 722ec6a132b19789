"""Reads pages of documentation, and compares what their commands print with what the pages show.

A page is plain Markdown:

- A ```python block whose first line is a comment with a name (`# eval_sums.py`) is that file. So is a ```toml or
  ```yaml block. A block of any other format is a file if `<!-- file: NAME -->` is on the line before it.
- A ```console block holds commands, on lines that begin with `$ `, with their output below them. Lines that begin with
  `> ` continue a command. In the output, a line `...` stands for any lines, and `...` within a line for any text.
- `<!-- numbers differ by run -->` on the line before a block lets all numbers in its outputs differ.
- `<!-- not run: REASON -->` on the line before a block says why it is not run.

Files are written and commands run in the order of the page, in one shell and one directory. A command that fails is
an error of the page, unless the page shows its exit code with `$ echo $?` next. The directory is shown as
`/home/you/evals`, the machine as `laptop`, its user as `you`. Ports that the page names are replaced by free ones. The
page of an example finds a copy of `examples/` there, as in a checkout.

``python -m tests.support.pages PAGE`` runs a page and shows where it is wrong; ``--write`` puts what was printed there.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.commands import Commands
from tests.support.page_shell import UNFINISHED, Ran, run_script
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SHOWN_DIRECTORY = "/home/you/evals"
_FENCE = re.compile(r"^```(\S*)\s*$")
_REMARK = re.compile(r"^<!-- (not run|file|numbers differ by run)(?:: (.+))? -->$")
_NAME = re.compile(r"^# ([\w./-]+\.(?:py|toml|ini|yml|yaml))$")
_PORT = re.compile(r"(?:127\.0\.0\.1:|localhost:|port[ =])(\d{4,5})\b")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_PROGRESS = re.compile(r"\S+: [\d,]+/(?:\?|[\d,]+) rows.*")
_CELL = 76


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is the index of its first line in the page; `remark` belongs to the comment before it."""

    language: str
    lines: list[str]
    line: int
    remark: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def file(self) -> str | None:
        """The name of the file that the block is."""
        if self.remark is not None and self.remark[0] == "file":
            return self.remark[1]
        named = _NAME.match(self.lines[0]) if self.lines and self.language != "console" else None
        return named[1] if named else None

    @property
    def is_run(self) -> bool:
        return self.remark is None or self.remark[0] != "not run"


@dataclass(frozen=True)
class Command:
    """A command of a page and the output below it, which begins at the index `line` of the page's lines."""

    text: str
    expected: list[str]
    line: int
    numbers_differ: bool = False


@dataclass
class Page:
    path: Path
    lines: list[str] = field(init=False)
    blocks: list[Block] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.path.read_text(encoding="utf-8").splitlines()
        self.blocks = list(_blocks(self.lines))

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.path.name

    @property
    def is_run(self) -> bool:
        return any(block.language == "console" and block.is_run for block in self.blocks)

    def steps(self) -> Iterator[Block | Command]:
        """The files and commands of the page in order. A file is its block."""
        for block in self.blocks:
            if not block.is_run:
                continue
            if block.language == "console":
                yield from commands_of(block)
            elif block.file is not None:
                yield block

    def command_lines(self) -> Iterator[str]:
        """Every command on the page, whether it is run or not."""
        for block in self.blocks:
            if block.language == "console":
                yield from (command.text for command in commands_of(block))
            elif not block.language:
                yield from block.lines


def _blocks(lines: Sequence[str]) -> Iterator[Block]:
    opened: tuple[str, int, tuple[str, str] | None] | None = None
    for index, line in enumerate(lines):
        fence = _FENCE.match(line)
        if opened is None and fence:
            remark = _REMARK.match(lines[index - 1]) if index else None
            opened = fence[1], index + 1, (remark[1], remark[2] or "") if remark else None
        elif opened is not None and line.rstrip() == "```":
            language, begin, found = opened
            yield Block(language, list(lines[begin:index]), begin, found)
            opened = None
    assert opened is None, f"a block begins on line {opened and opened[1]} and does not end"


def commands_of(block: Block) -> Iterator[Command]:
    text, expected, begin = "", [], block.line
    numbers_differ = block.remark is not None and block.remark[0] == "numbers differ by run"
    for index, line in enumerate(block.lines, block.line):
        if line.startswith("$ "):
            if text:
                yield Command(text, expected, begin, numbers_differ)
            text, expected, begin = line[2:], [], index + 1
        elif line.startswith("> ") and text and not expected:
            text, begin = f"{text}\n{line[2:]}", index + 1
        else:
            assert text, f"line {index + 1} is output of no command"
            expected.append(line)
    if text:
        yield Command(text, expected, begin, numbers_differ)


# What differs between two runs, or between two machines, in the order in which it is replaced.
_LOOSE = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\x1b\[[0-9;]*m", ""),
        (r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)?", "DATE"),
        (r"\b\d\d:\d\d(?::\d\d)?\b", "CLOCK"),
        (r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,}\b", "ID"),
        (r"\b\d[\d,]*(?:\.\d+)?(?=(?: rows)?(?:/s| a second))", "RATE"),
        (r"\b\d+m\d[\d.]*s\b", "TIME"),
        (r"\b\d[\d,]*(?:\.\d+)? ?(?:s|ms|µs|min|h|d|days?|hours?|minutes?|seconds?)\b", "TIME"),
        (r"TIME(?: TIME)+", "TIME"),
        (r"\b\d[\d,]*(?:\.\d+)? ?(?:bytes|[kKMG]i?B)\b", "SIZE"),
        (r"\bpid \d+|(?<=[a-z]):\d+\b", "PID"),
        (r"\b\d+\.\d+\.\d+(?:[.\w+-]*\w)?\b", "VERSION"),
        (r"([─━═=_-])\1{3,}", "LINE"),
        (r"\s+", " "),
    )
]


def loosely(line: str) -> str:
    """A line without what differs by run: times, dates, rates, sizes, ids, widths of columns."""
    for pattern, name in _LOOSE:
        line = pattern.sub(name, line)
    return line.strip()


def matches(expected: Sequence[str], actual: Sequence[str], *, numbers_differ: bool = False) -> bool:
    """Whether an output is the expected one. A line ``...`` stands for any lines."""
    if numbers_differ:
        expected, actual = ([_NUMBER.sub("N", loosely(line)) for line in lines] for lines in (expected, actual))
    if not expected:
        return not actual
    if expected[0].strip() == "...":
        return any(matches(expected[1:], actual[begin:]) for begin in range(len(actual) + 1))
    return bool(actual) and _line_matches(expected[0], actual[0]) and matches(expected[1:], actual[1:])


def _line_matches(expected: str, actual: str) -> bool:
    if "..." not in expected:
        return loosely(expected) == loosely(actual)
    parts = (re.escape(loosely(part)) for part in expected.split("..."))
    return re.fullmatch(r"\s*.*?\s*".join(parts), loosely(actual)) is not None


def side_by_side(expected: Sequence[str], actual: Sequence[str]) -> str:
    """Both outputs in two columns. The lines between which a ``|`` stands differ."""
    lines = [f"  {'expected':{_CELL}}   actual"]
    matcher = difflib.SequenceMatcher(None, [*map(loosely, expected)], [*map(loosely, actual)], autojunk=False)
    for what, begin, end, other_begin, other_end in matcher.get_opcodes():
        left, right = expected[begin:end], actual[other_begin:other_end]
        for number in range(max(len(left), len(right))):
            ours, theirs = (side[number] if number < len(side) else "" for side in (left, right))
            lines.append(f"  {ours[:_CELL]:{_CELL}} {' ' if what == 'equal' else '|'} {theirs}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Problem:
    """A command of a page that did not do what the page says. `output` is None if the output is the expected one."""

    command: Command
    text: str
    output: list[str] | None = None


def run_page(
    page: Page, directory: Path, commands: Commands, *, timeout: float = 600
) -> tuple[list[Ran], list[Problem]]:
    """Run a page in an empty directory. Returns what its commands did, and what is wrong."""
    if page.path.parent.parent == EXAMPLES:
        shutil.copytree(EXAMPLES, directory / EXAMPLES.name, ignore=shutil.ignore_patterns("__pycache__"))
        # What makes the directory the root of pytest's paths, as pyproject.toml does in a checkout.
        (directory / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    steps = list(page.steps())
    ports = {port: free_port() for port in {int(port) for port in _PORT.findall("\n".join(page.lines))}}
    script: list[str | tuple[str, str]] = []
    for step in steps:
        if isinstance(step, Command):
            script.append(_with_free_ports(step.text, ports))
        else:
            assert step.file is not None
            script.append((step.file, _with_free_ports(step.text, ports)))
    ran = run_script(script, directory, commands, timeout=timeout)
    shown = {theirs: own for own, theirs in ports.items()}
    listed = [step for step in steps if isinstance(step, Command)]
    problems = []
    for number, (command, done) in enumerate(zip(listed, ran, strict=False)):
        lines = _shown(done.output, directory, shown)
        following = listed[number + 1].text if number + 1 < len(listed) else ""
        if done.code == UNFINISHED:
            shown = "".join(f"\n  {line}" for line in lines)
            problems.append(Problem(command, f"  it did not end in time, or ended the shell{shown}"))
        elif not matches(command.expected, lines, numbers_differ=command.numbers_differ):
            problems.append(Problem(command, side_by_side(command.expected, lines), lines))
        elif done.code and "$?" not in following and "||" not in command.text:
            problems.append(Problem(command, f"  exit code {done.code}, which the page does not show"))
    return ran, problems


def _shown(output: str, directory: Path, ports: dict[int, int]) -> list[str]:
    """The lines of an output, without names of this machine. Spaces and empty lines at their ends are not seen."""
    host = re.escape(socket.gethostname())
    for pattern, replacement in (
        (re.escape(str(directory)), SHOWN_DIRECTORY),
        (rf"\bby {re.escape(getpass.getuser())} on {host}\b", "by you on laptop"),
        (rf"\bon {host}\b", "on laptop"),
        (rf"\b{host}:(?=\d)", "laptop:"),
        (rf"@{host}\b", "@laptop"),
    ):
        output = re.sub(pattern, replacement, output)
    lines = [line.rstrip() for line in _with_ports(output, ports).splitlines()]
    return "\n".join(lines).strip("\n").splitlines()


def _with_free_ports(text: str, ports: dict[int, int]) -> str:
    # Only where it stands for a port: 8000 may be a price.
    return _PORT.sub(lambda found: f"{found[0].removesuffix(found[1])}{ports[int(found[1])]}", text)


def _with_ports(text: str, ports: dict[int, int]) -> str:
    for own, theirs in ports.items():
        text = re.sub(rf"(?<![\d.]){own}\b", str(theirs), text)
    return text


def explain(page: Page, problems: Sequence[Problem]) -> str:
    return "\n\n".join(
        f"{page.name}:{problem.command.line}: $ {problem.command.text}\n{problem.text}" for problem in problems
    )


def rewrite(page: Page, problems: Sequence[Problem]) -> None:
    """Put the output of the commands of which it is wrong into the page, without what each run has differently."""
    lines = list(page.lines)
    for problem in sorted(problems, key=lambda problem: -problem.command.line):
        if problem.output is not None:
            begin = problem.command.line
            lines[begin : begin + len(problem.command.expected)] = _worth_reading(problem.output)
    page.path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _worth_reading(output: list[str]) -> list[str]:
    """The output with `...` for the versions and plugins of pytest, and for lines that say how far a command is."""
    begin = next((index for index, line in enumerate(output) if " test session starts =" in line), None)
    end = next((index for index, line in enumerate(output) if line.startswith("collected ")), None)
    if begin is not None and end is not None:
        output = [*output[:begin], "...", *output[end:]]
    lines = ["..." if _PROGRESS.fullmatch(line) else line for line in output]
    return [line for index, line in enumerate(lines) if index == 0 or line != "..." or lines[index - 1] != line]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.pages", description="Run pages of documentation.")
    parser.add_argument("--write", action="store_true", help="write outputs that differ into the page")
    parser.add_argument("--show", action="store_true", help="print what every command did, and how long it took")
    parser.add_argument("pages", nargs="+", type=Path)
    options = parser.parse_args()
    commands = Commands("openai")
    failed = False
    try:
        for path in options.pages:
            page = Page(path.resolve())
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
                ran, problems = run_page(page, Path(directory).resolve(), commands)
            for done in ran if options.show else ():
                print(f"$ {done.command}\n{done.output}[{done.seconds:.2f} s, exit code {done.code}]\n")
            if problems:
                print(explain(page, problems))
            if options.write:
                rewrite(page, problems)
            failed = failed or bool(problems)
            print(f"{page.name}: {len(ran)} commands in {sum(done.seconds for done in ran):.1f} s")
    finally:
        commands.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
