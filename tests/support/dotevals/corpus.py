"""Writes the Python code in the documentation, examples and docstrings of a release of dotevals as files that run.

Most of the code is in fragments. What a fragment uses is taken from the fragments before it on the page; names of the
library that it does not import are imported; data, models and fixtures that the page only mentions are stand-ins.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import re
import symtable
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Where the names are that pages use without importing them.
_LIBRARY = {
    "dotevals": ("ForEach", "Result", "batch", "foreach", "run"),
    "dotevals.evaluators": ("ast_evaluation", "evaluator", "exact_match", "numeric_match", "valid_json"),
    "dotevals.metrics": ("Metric", "accuracy", "metric"),
    "dotevals.providers": ("ModelHandle", "ModelProvider"),
    "dotevals.concurrency": ("Adaptive", "Sequential", "SlidingWindow"),
    "dotevals.datasets": ("Dataset", "get_dataset_info", "list_available"),
    "dotevals.sessions": ("SessionManager",),
    "dotevals.storage": ("Storage", "get_storage", "register"),
    "typing": ("Any", "Callable", "Dict", "Iterator", "List", "Optional", "Tuple", "Union"),
    "tenacity": ("AsyncRetrying", "retry_if_exception_type", "stop_after_attempt", "wait_exponential"),
}
_MODULES = {"asyncio", "dotevals", "json", "os", "pytest", "random", "re", "sys", "time"}
_MODULE_OF = {name: module for module, names in _LIBRARY.items() for name in names}

# Replaced although they may be installed, so that no example opens a connection.
_OFFLINE = {"datasets", "openai", "transformers"}
_DECORATOR = re.compile(r"(?:foreach|batch)\w*[.(]")
# Files that examples read.
_DATA = {
    "dataset.jsonl": '{"question": "2 + 2", "answer": "4"}\n',
    "large_dataset.jsonl": '{"question": "2 + 2", "answer": "4"}\n',
    "my_data.jsonl": '{"input": "a", "output": "b"}\n',
    "custom_sentiment.json": '{"reviews": [{"text": "good", "sentiment": "positive"}]}',
}
# How the names of evaluators end that pages use and leave to the reader.
_EVALUATORS = ("_match", "_evaluator")
_FENCE = re.compile(r"^( *)```[ \t]*(?:python|py)[^\n]*\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
# Commands of a shell that stand between statements of Python.
_COMMAND = re.compile(r"^(?:\$ |pytest |pip |dotevals )")


@dataclass(frozen=True)
class Block:
    """A piece of code: `page` is its file in the release, `line` where it begins there."""

    release: str
    page: str
    line: int
    code: str

    @property
    def name(self) -> str:
        return f"{self.release} {self.page}:{self.line}"

    @property
    def module(self) -> str:
        return "eval_" + re.sub(r"\W+", "_", self.name)


def blocks_of(release: Path) -> Iterator[Block]:
    """The Python code of an unpacked release: in its README, documentation, examples, and docstrings of its sources."""
    for page in [release / "README.md", *sorted((release / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            yield _block(release, page, text.count("\n", 0, found.start()) + 1, found[2])
    for example in sorted((release / "examples").glob("*.py")):
        yield _block(release, example, 1, example.read_text(encoding="utf-8"))
    for source in sorted((release / "src").rglob("*.py")):
        text = source.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                for found in _FENCE.finditer(ast.get_docstring(node) or ""):
                    yield _block(release, source, getattr(node, "lineno", 1), found[2])


def _block(release: Path, page: Path, line: int, code: str) -> Block:
    code = textwrap.dedent(code)
    if ">>> " in code:
        lines = [each[4:] if each.startswith((">>> ", "... ")) else "" for each in code.splitlines()]
        code = "\n".join(lines)
    version = release.name.rpartition("-")[2]
    return Block(version, page.relative_to(release).as_posix(), line, _without_commands(code))


def _without_commands(code: str) -> str:
    try:
        ast.parse(code)
    except SyntaxError:
        return "\n".join("" if _COMMAND.match(line) else line for line in code.splitlines())
    return code


def is_script(block: Block) -> bool:
    """Whether a block calls `run`, and so is a script and no evaluation file for pytest."""
    return re.search(r"(?<![\w.])run\(", re.sub(r"\bdef run\(", "", block.code)) is not None


def write_files(releases: Sequence[Path], directory: Path) -> dict[str, str]:
    """Write the code of releases as files for doteval, each piece once. Returns the block of each file.

    Evaluations are in `directory`/evaluations, scripts in `directory`/scripts. Pieces that are no whole module, such as
    a signature, are left out.
    """
    for name, text in _DATA.items():
        (directory / name).write_text(text)
    for kind in ("evaluations", "scripts"):
        (directory / kind).mkdir()
    written: dict[str, str] = {}
    known: set[str] = set()
    for release in releases:
        pages: dict[str, _Page] = {}
        for block in blocks_of(release):
            try:
                text = pages.setdefault(block.page, _Page()).completed(block)
            except SyntaxError:
                continue
            if text not in known:
                known.add(text)
                written[block.module] = block.name
                path = directory / ("scripts" if is_script(block) else "evaluations") / f"{block.module}.py"
                path.write_text(_in_this_block(block, re.sub(r"\bdotevals\b", "doteval", text)))
    return written


class _Page:
    """Completes the blocks of one page, in their order: remembers what earlier blocks have defined."""

    def __init__(self) -> None:
        self._defined: dict[str, str] = {}

    def completed(self, block: Block) -> str:
        """The text of a file that holds the block and what it needs. Raises SyntaxError if it is no whole module."""
        compile(block.code, block.name, "exec")
        needed = _Needs(self._defined)
        needed.add(block.code)
        for statement in ast.parse(block.code).body:
            for name in _names_bound(statement):
                # Statements that use what they define, such as a second `dataset`, would not end.
                self._defined[name] = ast.get_source_segment(block.code, _with_decorators(statement)) or ""
        return needed.text() + block.code


class _Needs:
    """Collects what a block needs before it: definitions of the page, imports and stand-ins."""

    def __init__(self, defined: Mapping[str, str]) -> None:
        self._defined = defined
        self._bound: set[str] = set()
        self._before: list[str] = []
        self._imports: dict[str, str] = {}
        self._stand_ins: dict[str, str] = {}
        self._packages: set[str] = set()

    def add(self, code: str) -> None:
        tree = ast.parse(code)
        self._bound |= _names_bound_by(code)
        self._packages |= _missing_packages(tree)
        columns = _columns_of(tree)
        for name in sorted(_free_names(code) - self._bound):
            self._bound.add(name)
            if self._defined.get(name, "").startswith(("import ", "from ")):
                self._imports[name] = self._defined[name]
            elif name in self._defined:
                self.add(self._defined[name])
                self._before.append(self._defined[name])
            elif name in _MODULES:
                self._imports[name] = f"import {name}"
            elif name in _MODULE_OF:
                self._imports[name] = f"from {_MODULE_OF[name]} import {name}"
            elif name.endswith(_EVALUATORS):
                self._imports["evaluator"] = "from dotevals.evaluators import evaluator"
                self._imports["accuracy"] = "from dotevals.metrics import accuracy"
                judge = f"def {name}(*arguments, **options):\n    return True"
                self._stand_ins[name] = f"@evaluator(metrics=accuracy())\n{judge}"
            elif name.startswith("eval_"):
                self._imports["foreach"] = "from dotevals import foreach"
                self._imports["exact_match"] = "from dotevals.evaluators import exact_match"
                function = f"def {name}(question, answer, model=None):\n    return exact_match(question, answer)"
                self._stand_ins[name] = f"@foreach('question,answer', [('2 + 2', '4')])\n{function}"
            elif re.fullmatch(r"load\w*_(?:data|dataset)", name):
                self._stand_ins[name] = f"def {name}(*_, **__):\n    return {[('a', 'b', 'c')] * 3!r}"
            elif name in columns:
                row = tuple(f"{column} of a row" for column in range(columns[name]))
                self._stand_ins[name] = f"{name} = {[row] * 3!r}"
            else:
                self._stand_ins[name] = f"{name} = StandIn({name!r})"
        for name in _fixtures_asked_for(tree) - self._bound:
            self._bound.add(name)
            if name in self._defined and "fixture" in self._defined[name]:
                self.add(self._defined[name])
                self._before.append(self._defined[name])
            else:
                self._stand_ins[name] = f"@pytest.fixture\ndef {name}():\n    return AwaitableStandIn({name!r})"

    def text(self) -> str:
        head = ["import pytest", "from stand_ins import AwaitableStandIn, StandIn, stand_in_for"]
        if self._packages:
            head.append(f"stand_in_for(*{sorted(self._packages)!r})")
        parts = [*head, *self._imports.values(), *self._stand_ins.values(), *self._before]
        return "\n".join(parts) + "\n"


def _in_this_block(block: Block, text: str) -> str:
    """The text, with its evaluations renamed so that no two blocks have one of the same name, and without waits."""
    for name in set(re.findall(r"\bdef (eval_\w+)", text)):
        text = re.sub(rf"\b{name}\b", f"{name}__{block.module}", text)
    return re.sub(r"\btime\.sleep\([^)]*\)", "None", text)


def _with_decorators(statement: ast.stmt) -> ast.stmt:
    decorators = getattr(statement, "decorator_list", [])
    if decorators:
        statement.lineno, statement.col_offset = decorators[0].lineno, decorators[0].col_offset - 1
    return statement


def _names_bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        for alias in statement.names:
            yield (alias.asname or alias.name).partition(".")[0]
    elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _names_bound_by(code: str) -> set[str]:
    symbols = symtable.symtable(code, "block", "exec").get_symbols()
    return {each.get_name() for each in symbols if each.is_assigned() or each.is_imported() or each.is_namespace()}


def _free_names(code: str) -> set[str]:
    """The names that a module uses and that are not built in; those that it binds itself are among them."""

    def names(table: symtable.SymbolTable) -> Iterator[str]:
        for symbol in table.get_symbols():
            if symbol.is_global() or (table.get_type() == "module" and symbol.is_referenced()):
                yield symbol.get_name()
        for child in table.get_children():
            yield from names(child)

    return {name for name in names(symtable.symtable(code, "block", "exec")) if not hasattr(builtins, name)}


def _columns_of(tree: ast.AST) -> dict[str, int]:
    """How many columns the datasets have that `@foreach` and `@batch` name."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and len(node.args) > 1 and isinstance(node.args[0], ast.Constant)):
            continue
        spec, dataset = node.args[0].value, node.args[1]
        if isinstance(spec, str) and isinstance(dataset, ast.Name):
            found[dataset.id] = max(found.get(dataset.id, 0), spec.count(",") + 1)
    return found


def _fixtures_asked_for(tree: ast.Module) -> set[str]:
    """The parameters that pytest fills: those of evaluations and fixtures but for columns and parametrized names."""
    asked: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        decorators = [ast.unparse(each) for each in node.decorator_list]
        filled = {"request", "self", "tmp_path", "monkeypatch", "model_providers"}
        for each in node.decorator_list:
            if "indirect=True" in ast.unparse(each):
                continue
            constants = [part.value for part in ast.walk(each) if isinstance(part, ast.Constant)]
            filled |= {name.strip() for text in constants[:1] if isinstance(text, str) for name in text.split(",")}
        is_evaluation = node.name.startswith("eval_") and any(_DECORATOR.search(each) for each in decorators)
        if is_evaluation or any("fixture" in each for each in decorators):
            asked |= {argument.arg for argument in node.args.args} - filled
    return asked


def _missing_packages(tree: ast.AST) -> set[str]:
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(str(node.module).partition(".")[0])
    # Plugins of dotevals are packages of theirs: what needs one is an exception with that reason.
    imported = {name for name in imported if not name.startswith("dotevals")}
    return {name for name in imported if name in _OFFLINE or importlib.util.find_spec(name) is None}
