"""Packaging: locks with hashes, a complete wheel, declared dependencies, and no names of package registries."""

from __future__ import annotations

import ast
import importlib.metadata
import itertools
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-build.lock", "requirements-plugins.lock"]
# Written in parts, so that this file does not contain the names itself.
HOSTS = re.compile(
    "|".join(("pypi" + r"\.org", "python" + "hosted", "index" + "-url[= ]+[\"']?http", "extra" + "-index"))
)


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def locked(name: str) -> dict[str, set[str]]:
    """Versions by package; a package may have one for each version of Python."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([a-z0-9._-]+)(?:\[[^]]*])?==(\S+)", line, re.IGNORECASE):
            versions.setdefault(found[1], set()).add(found[2])
    return versions


def test_no_file_names_a_registry() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    named = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if HOSTS.search(text):
            named.append(str(path.relative_to(ROOT)))
    assert named == []


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text, flags=re.IGNORECASE)[1:]
    assert entries
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_locks_agree_and_the_second_holds_the_others() -> None:
    users, developers, build, plugins = map(locked, LOCKS)
    assert users.items() <= developers.items()
    assert build.items() <= developers.items()
    # Plugins are installed in a folder that is searched first.
    assert not plugins.keys() & developers.keys()


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = project["dependency-groups"]
    plugins = groups.pop("plugins")
    wanted = project["project"]["dependencies"]
    developers = [item for group in groups.values() for item in group if isinstance(item, str)]
    developers += project["build-system"]["requires"]
    for names, lock in (
        (wanted, "requirements.lock"),
        (wanted + developers, "requirements-dev.lock"),
        (plugins, "requirements-plugins.lock"),
    ):
        versions = locked(lock)
        for requirement in names:
            assert normalized(requirement) in versions, f"{requirement} is not in {lock}: make lock"


# Values of rows bring the first two with them; data frames of Polars are for those who have it.
BROUGHT_BY_USERS = {"pandas", "PIL", "polars"}
FOR_TYPE_CHECKERS = {"_typeshed"}


def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {normalized(requirement) for requirement in requirements}
    distributions = importlib.metadata.packages_distributions()
    undeclared = {
        module
        for path in (ROOT / "doteval").rglob("*.py")
        for module in imported(path) - sys.stdlib_module_names - {"doteval"} - BROUGHT_BY_USERS - FOR_TYPE_CHECKERS
        if not declared & {normalized(name) for name in distributions.get(module, [module])}
    }
    assert undeclared == set()


def imported(path: Path) -> set[str]:
    """The top-level names of all modules that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def normalized(requirement: str) -> str:
    """The package name of a requirement, in the form that locks use."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_the_wheel_contains_doteval_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        contained = set(archive.namelist())
        metadata = {name.rpartition("/")[2]: archive.read(name).decode() for name in contained if ".dist-info/" in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "doteval").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {f"doteval/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "docs").rglob("*.md")}
    assert {name for name in contained if ".dist-info/" not in name} == expected
    assert any(re.fullmatch(r"doteval/store/migrations/versions/.*0001.*\.py", name) for name in contained)
    assert "doteval/py.typed" in contained
    assert "doteval = doteval.cli:main" in metadata["entry_points.txt"]
    assert "License-Expression: MIT" in metadata["METADATA"]


def test_make_help_lists_every_target_with_a_description() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"help", "install", "demo", "test", "check", "lock", "format", "clean"} <= set(targets)
    for target in targets:
        assert re.search(rf"^  make {target} ", shown, re.MULTILINE)
