"""The documentation says what is: commands, options, exit codes, settings, links, code that works."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from docs import conf
from docs.generate.commands import commands
from doteval.cli.manual import find_page, find_section, sections
from doteval.settings import Settings
from doteval.store import Store
from examples import run
from tests.support.commands import Commands
from tests.support.pages import ROOT, Page

PAGES = sorted(
    [
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "workers/README.md", "infra/README.md", "examples/README.md")
        ),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
# Their contents are the table of examples/README.md.
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
# Those whose blocks are run as they stand are tests of tests/acceptance/test_documentation.py.
RUN = {path for path in PAGES if Page(path).is_run}
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^### `doteval {title}\b.*?(?=^##|\Z)", CLI, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section for doteval {title}"
    return found[0]


@pytest.mark.parametrize(("name", "command"), commands().items())
def test_every_option_is_documented_and_no_other(name: str, command: click.Command) -> None:
    options = {text for param in command.params if isinstance(param, click.Option) for text in param.opts}
    documented = set(re.findall(r"`(--?[a-z][a-z-]*)", section(name)))
    assert documented == options


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"]\(([^)\s]+)[^)]*\)", prose(page)):
        url = urlsplit(target)
        if url.scheme:
            assert url.scheme == "https", target
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", url.netloc), target
            continue
        leads_to = (page.parent / url.path).resolve() if url.path else page
        assert leads_to.exists(), target
        assert not url.fragment or url.fragment in anchors(leads_to), target


@cache
def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> set[str]:
    return {section.anchor for section in sections(page.read_text(encoding="utf-8"))}


def test_the_index_lists_every_page_once() -> None:
    """Sphinx makes the contents of the site of it: see docs/conf.py."""
    listed = [page for _, links in conf.groups((ROOT / "docs" / "index.md").read_text()) for page, _, _ in links]
    pages = [str(page.relative_to(ROOT).with_suffix("")) for page in PAGES if page.name != "index.md"]
    assert sorted(set(listed)) == sorted(listed)
    assert set(pages) - {"README"} <= set(listed)


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=lambda page: str(page.relative_to(ROOT)))
def test_options_in_commands_exist(page: Path) -> None:
    known = commands()
    for line in Page(page).command_lines():
        for part in re.split(r"  +#|\n|[|;&>]", line):
            if found := re.match(r"\s*doteval (?=\w)(\S+)( \w[\w-]*)?(.*)", part):
                whole = f"{found[1]}{found[2] or ''}"
                command = known[whole if whole in known else found[1]]
                options = {text for param in command.params for text in param.opts}
                assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", found[3])) <= options, line


def test_the_list_of_examples_has_each_with_its_title() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\(\1/README.md\) \| (.+) \|$", (ROOT / "examples/README.md").read_text(), re.MULTILINE
    )
    assert rows == [(page.parent.name, run.title(page)) for page in EXAMPLES]
    assert all(Page(page).is_run for page in EXAMPLES)


def test_make_example_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(EXAMPLES)
    assert run.main(["no such one"]) == 2
    assert "There is no example 'no such one'" in capsys.readouterr().err


@pytest.mark.parametrize("page", sorted(RUN), ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_that_is_run_is_a_file(page: Path) -> None:
    """Other code on it would be checked by nobody."""
    code = [block for block in Page(page).blocks if block.language in {"python", "toml"} and block.is_run]
    assert [block.text for block in code if block.file is None] == []


# What commands of a block without a language begin with. Anything else there would be compared by nobody.
PROGRAMS = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:/\S+/)?"
    r"(?:apt-get|bash|cd|celery|cp|createdb|curl|docker|doteval|export|gh|git|install|jq|journalctl|kubectl|make|pg_restore"
    r"|pip|promtool|psql|pytest|python3?|redis-cli|sed|source|sqlite3|sudo|systemctl|systemd-analyze|useradd|\\$)(?![\w-])"
)
# Blocks without a language that hold something else, by their first line.
NO_COMMANDS = {
    "__main__": "a drawing of the layers",
    "eval file ──▶ pytest_runtime ──▶ coordination/ingest ──▶ store (rows: pending)": "a drawing of a row's journey",
    "doteval submit                    doteval.experiment": "a drawing of spans, see acceptance/test_tracing.py",
    "ACL SETUSER eval on >PASSWORD": "what is given to redis-cli",
}


def no_commands(lines: list[str]) -> list[str]:
    """The lines of a block that are neither commands, nor continue one, nor are comments."""
    found, text = [], ""
    for line in lines:
        goes_on = text.endswith("\\") or text.count("'") % 2 == 1 or line.startswith((" ", "#")) or not line
        text = f"{text}{line}" if goes_on else line
        if not goes_on and PROGRAMS.match(line) is None:
            found.append(line)
    return found


def test_what_is_no_command() -> None:
    assert no_commands(["doteval show x   # why", "", "A=1 /opt/bin/pip install \\", "-r x", "# a comment"]) == []
    assert no_commands(["$ doteval show x", "Error: no", "eval_x: 2 rows"]) == [
        *("$ doteval show x", "Error: no", "eval_x: 2 rows")
    ]


@pytest.mark.parametrize(
    "page",
    # The code of docstrings is run by tests/unit/test_docstrings.py.
    [page for page in (*PAGES, *EXAMPLES) if page.parent.name != "reference"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_outputs_are_in_blocks_that_are_compared(page: Path) -> None:
    """An output belongs into a console block, which is run, or says why it is not."""
    for block in Page(page).blocks:
        if block.language == "text":
            # tests/acceptance/test_troubleshooting.py provokes each of them.
            assert page.name == "troubleshooting.md", block.text
        elif not block.language and not block.lines[0].strip().startswith(tuple(NO_COMMANDS)):
            assert no_commands(block.lines) == []


def test_messages_name_pages_that_exist() -> None:
    named = {
        found
        for path in (ROOT / "doteval").rglob("*.py")
        for found in re.findall(r"doteval docs ([a-z][\w/-]*(?:#[\w-]+)?)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 2
    for name in named:
        page, _, anchor = name.partition("#")
        assert find_page(page)
        assert not anchor or find_section(find_page(page), anchor)


def test_the_map_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:doteval/|tests/)?[a-z_]+/[a-z_/]*(?:\.py)?)`", text)
    assert len(named) > 40
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "doteval" / name).exists()]
    assert missing == []


def test_the_map_shows_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "doteval").glob("*/__init__.py")}
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", text, re.MULTILINE)
    assert packages == {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in RUN and python_blocks(page)], ids=lambda page: page.name
)
def test_code_works(pytester: pytest.Pytester, commands: Commands, monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    """Each block is a file; its evaluations run, and no row fails but for want of an API."""
    for variable in (
        *(f"DOTEVAL_{field.upper()}" for field in Settings.model_fields),
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
    ):
        monkeypatch.delenv(variable, raising=False)
    pytester.makefile(".csv", questions="question,answer\n2 + 2,4\n", reviews="text,label\nI love it,positive\n")
    files = {f"eval_block{number}.py": block for number, block in enumerate(python_blocks(page))}
    for file, block in files.items():
        (pytester.path / file).write_text(block, encoding="utf-8")
    ran = commands.run(
        "pytest",
        [*files, "--experiment", "documented"],
        directory=pytester.path,
        environment=os.environ,
        timeout=60,
    )
    written = {
        (file, name): block
        for file, block in files.items()
        for name in re.findall(r"^(?:async )?def (eval_\w+)", block, re.MULTILINE)
    }
    assert ran.returncode == (0 if written else 5), ran.stdout
    if not written:
        return
    with Store.open(str(pytester.path / ".doteval" / "doteval.db"), create=False) as store:
        evaluations = store.evaluations.of(store.experiments.find("documented"))
    by_function = [((each.spec.path, each.spec.name.partition("[")[0]), each.counts) for each in evaluations]
    offline = {function for function, block in written.items() if "openai" not in block}
    assert offline <= {function for function, _ in by_function}
    for function, counts in by_function:
        if function in offline:
            assert counts.done == counts.total, function
            assert counts.done > 0, function
