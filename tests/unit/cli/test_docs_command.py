"""`doteval docs`: the pages of the documentation in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doteval.cli import manual
from tests.support.cli import CommandLine

PAGES = Path(__file__).parents[3] / "docs"


def test_it_lists_the_pages_in_their_groups(doteval_: CommandLine) -> None:
    ran = doteval_("docs")
    lines = [line.strip() for line in ran.out.splitlines()]
    assert ran.code == 0
    assert lines.index("Tutorial") < lines.index("Reference")
    assert any(line.startswith("cli ") and "every command" in line for line in lines)
    listed = json.loads(doteval_("docs", "--json").out)["pages"]
    assert {each["page"] for each in listed} >= {"cli", "index", "reading-results"}
    assert all(Path(each["path"]).is_file() and each["about"] and each["group"] for each in listed)


def test_it_prints_a_page_and_a_section(doteval_: CommandLine) -> None:
    page = (PAGES / "cli.md").read_text(encoding="utf-8")
    assert doteval_("docs", "cli", "--raw").out == page
    assert doteval_("docs", "cli.md", "--path").out == f"{PAGES / 'cli.md'}\n"
    section = json.loads(doteval_("docs", "docs/cli.md#store-urls", "--json").out)
    assert section["section"] == "store-urls"
    assert section["markdown"].startswith("## Store URLs\n")
    assert section["markdown"] in page
    assert "\n## " not in section["markdown"]


def test_links_become_names_of_pages(doteval_: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.md").write_text("# Docs\n\n## Guides\n\n- [Other](guides/other.md): the other `one`.\n")
    (tmp_path / "guides").mkdir()
    (tmp_path / "guides" / "other.md").write_text(
        "# Other\n\nSee [there](../cli.md#exit-codes), [here](#other) and [far](https://example.org/x.md).\n"
        "\n![A drawing](a.svg)\n\n```\n# no heading\n```\n"
    )
    monkeypatch.setattr(manual, "_FOLDERS", (tmp_path / "absent", tmp_path))
    out = " ".join(doteval_("docs", "other").out.split())
    assert "there (cli#exit-codes), here (guides/other#other) and far (https://example.org/x.md)" in out
    assert "(Picture: A drawing)" in out
    assert "# no heading" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("clii", "Did you mean 'cli'?"),
        ("nothing like it", "`doteval docs` lists the pages"),
        ("cli#store-url", "Did you mean 'store-urls' or"),
        ("../README", "has no page '../README'"),
    ],
)
def test_what_does_not_exist_is_said(doteval_: CommandLine, name: str, said: str) -> None:
    ran = doteval_("docs", name)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_a_package_without_pages_says_so(
    doteval_: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manual, "_FOLDERS", (tmp_path,))
    ran = doteval_("docs")
    assert ran.code == 2
    assert "came without its documentation" in ran.err
