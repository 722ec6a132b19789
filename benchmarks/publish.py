"""``python -m benchmarks.publish [RESULTS.json [NAME]]`` writes the figures of a run as Markdown.

All figures are written to a file in `runs` that has the date of the run. The aims replace those of the run before
between two marks in `README.md`. A run of some subjects, for which `NAME` is a word, and one with ``--slower`` have
only a file of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.environments import DIRECTORY
from benchmarks.figures import shown

_HERE = Path(__file__).parent
_MARKS = "<!-- aims -->", "<!-- end of aims -->"


def main() -> None:
    results = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else DIRECTORY / "results.json").read_text())
    name = sys.argv[2] if len(sys.argv) > 2 else "slower" if results["slower"] != 1 else None
    file = f"runs/{results['date']}-{name}.md" if name else f"runs/{results['date']}.md"
    (_HERE / file).write_text("\n".join(_figures(results, of_its_own=name is not None)) + "\n")
    if name:
        return
    readme = _HERE / "README.md"
    text = readme.read_text()
    first, last = (text.index(mark) for mark in _MARKS)
    aims = "\n".join(_aims(results["targets"]))
    conditions = f"{_conditions(results)} All figures, with the least and the most of each: [{file}]({file})."
    readme.write_text(f"{text[:first]}{_MARKS[0]}\n{conditions}\n\n{aims}\n{text[last:]}")


def _figures(results: dict[str, Any], *, of_its_own: bool) -> Iterable[str]:
    yield "# All figures of one run"
    yield ""
    yield f"{_conditions(results)} What the subjects measure, and how: [README](../README.md)."
    if results["slower"] != 1:
        yield ""
        times = shown(results["slower"])
        yield f"What rows take of a server or of the processor is {times} times as long, and aims follow."
    if of_its_own:
        yield ""
        yield from _aims(results["targets"])
    for work, figures in groupby(results["figures"], key=lambda figure: figure["work"]):
        yield ""
        yield f"## {work}"
        yield ""
        yield from _table(
            ("", "median", "least", "most", ""),
            (
                (
                    figure["way"],
                    *map(shown, (figure["median"], min(figure["values"]), max(figure["values"]))),
                    figure["unit"],
                )
                for figure in figures
            ),
        )


def _aims(targets: list[dict[str, Any]]) -> Iterable[str]:
    yield from _table(
        ("work", "", "measured", "aim", ""),
        (
            (
                target["work"],
                target["what"],
                shown(target["value"]),
                f"{target['sign']} {shown(target['aim'])}",
                "reached" if target["reached"] else "**missed**",
            )
            for target in targets
        ),
    )


def _conditions(results: dict[str, Any]) -> str:
    machine = results["machine"]
    return (
        f"Measured on {results['date']}, medians of {results['repeat']}: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory']} GB, {machine['system']}, Python {machine['python']}; "
        f"{', '.join(results['runners'])}."
    )


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterable[str]:
    """A Markdown table with text aligned to the left and numbers to the right."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join('---:' if head in ('median', 'least', 'most', 'measured', 'aim') else '---' for head in heads)}|"
    for line in lines:
        yield f"| {' | '.join(line)} |"


if __name__ == "__main__":
    main()
