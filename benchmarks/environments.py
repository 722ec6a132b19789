"""The virtual environments of doteval and of each peer, which are made once and kept.

doteval has one too, since the packages that only tests need, above all pytest plugins, would slow it down.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
DIRECTORY = CHECKOUT / ".benchmarks"
_UV = Path(sys.executable).with_name("uv")

_PACKAGES = {
    "doteval": ["--requirement", str(CHECKOUT / "requirements.lock")],
    "pytest": ["pytest==9.2.0", "pytest-xdist==3.8.0"],
    "dotevals-0.26": ["dotevals==0.26.0", "openai"],
    "dotevals-0.28": ["dotevals==0.28.3", "openai"],
    "inspect-ai": ["inspect-ai==0.3.285", "openai"],
    "pydantic-evals": ["pydantic-evals==2.62.0", "openai"],
}
# Packages that only the data frames of a peer need.
_FRAMES = {"inspect-ai": ["pandas==3.1.1", "pyarrow==26.0.1"]}
PEERS = tuple(name for name in _PACKAGES if name != "doteval")


def python_of(name: str, *, measured: bool = True) -> str:
    """The interpreter of an environment, which is made if it does not exist.

    measured: with what data frames need, and compiled. Tests, which only run the tool, do without, in half the time.
    """
    directory = DIRECTORY / name if measured else DIRECTORY / "unmeasured" / name
    python, installed = directory / "bin" / "python", directory / ".installed"
    if not installed.exists():
        print(f"Making an environment for {name} ...", flush=True)
        # uv needs no pip there, whose installation takes three seconds.
        pip = ["--without-pip"] if _UV.exists() else []
        subprocess.run([sys.executable, "-m", "venv", "--clear", *pip, str(directory)], check=True)
        _install(python, *_PACKAGES[name], *(_FRAMES.get(name, []) if measured else []), compiled=measured)
        if name == "doteval":
            # The subject `reading` measures extras of doteval, which need pyarrow and duckdb, and pandas beside them.
            _install(python, "hatchling", "editables", "pyarrow==26.0.1", "duckdb==2.0.1", "pandas==3.1.1")
            _install(python, "--no-deps", "--no-build-isolation", "--editable", str(CHECKOUT))
        installed.touch()
    return str(python)


@functools.cache
def version_of(name: str, package: str) -> str:
    """The version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python_of(name), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def versions() -> list[str]:
    """The runners that have an environment, with their versions."""
    there = [name for name in _PACKAGES if (DIRECTORY / name / ".installed").exists()]
    packages = [(name, name.partition("-0.")[0]) for name in there]
    return [f"{package} {version_of(name, package)}" for name, package in packages]


def _install(python: Path, *packages: str, compiled: bool = True) -> None:
    # uv takes a fifth of pip's time.
    installer = [_UV, "pip", "install", "--python", python] if _UV.exists() else [python, "-m", "pip", "install"]
    # Compiled now, so that the first measurement does not wait for it. pip compiles packages without an option.
    compiling = ["--compile-bytecode"] if _UV.exists() and compiled else []
    command = [*map(str, installer), "--quiet", *compiling, *packages]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
