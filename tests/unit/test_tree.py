"""The limits that keep the repository readable: sizes, circles, docstrings, unique names, words."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "doteval"
CODE = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "workers").rglob("*.py")])

MOST_FILES_IN_ROOT = 8
MOST_LINES_OF_A_MODULE = 500
# A class has fewer lines than this.
LINES_OF_A_CLASS = 300

# Words that the glossary has replaced. Each is looked for as a whole word, in any case.
BANNED_WORDS = (
    "conductor",
    "conductors",
    "deaths",
    "flight_log",
    "in hand",
    "in_hand",
    "intake",
    "landed",
    "landing",
    "lane",
    "lanes",
    "launcher",
    "launchers",
    "meant_for",
    "patience",
    "patiently",
    "spending_log",
    "standing",
    "stock",
    "take_in",
    "tally",
    "told",
    "whoever",
)
# Paths that begin with one of these may contain old words: what users of earlier versions read, figures of earlier
# runs, and migrations from a schema with a table of an old name.
EXEMPT = (
    "CHANGELOG.md",
    "benchmarks/runs/",
    "doteval/store/migrations/versions/",
    "tests/integration/store/test_spending.py",
    "tests/unit/test_tree.py",
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_the_root_of_the_package_holds_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FILES_IN_ROOT


def test_no_module_is_too_long() -> None:
    lines = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_MODULE} == {}


def test_no_class_is_too_long() -> None:
    too_long = {}
    for path in CODE:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines >= LINES_OF_A_CLASS:
                    too_long[f"{name_of(path)}: {node.name}"] = lines
    assert too_long == {}


def test_no_class_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_every_package_says_what_it_is_for() -> None:
    short = [
        name_of(path)
        for path in PACKAGE.rglob("__init__.py")
        if len((ast.get_docstring(parsed(path)) or "").splitlines()) < 2
    ]
    assert short == []


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph = {name: imported_modules(path, set(modules)) - {name} for name, path in modules.items()}
    assert circles(graph) == []


def imported_modules(path: Path, known: set[str]) -> set[str]:
    """The modules of doteval that a file imports, wherever in it, without those for type checkers only."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in runtime_nodes(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.add(submodule if submodule in known else base)
    return found & known


def runtime_nodes(node: ast.AST) -> list[ast.AST]:
    """All nodes below a node, without the bodies of ``if TYPE_CHECKING``."""
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            below: list[ast.AST] = list(child.orelse) if not isinstance(child.test, ast.UnaryOp) else list(child.body)
            for each in below:
                nodes += [each, *runtime_nodes(each)]
        else:
            nodes += [child, *runtime_nodes(child)]
    return nodes


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, by Tarjan's algorithm for strongly connected components."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = lowest[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], index[other])
        if lowest[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return sorted(found)


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


def test_the_old_words_are_gone() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    words = re.compile(rf"(?<![a-zA-Z])({'|'.join(map(re.escape, BANNED_WORDS))})(?![a-zA-Z])", re.IGNORECASE)
    patterns = ["*.py", "*.md", "*.lua", "*.toml", "*.yml"]
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if name.startswith(EXEMPT) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found += [f"{name}:{number}: {match[0]}" for match in words.finditer(line)]
    assert found == []
