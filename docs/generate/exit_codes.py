"""The page of exit codes."""

from __future__ import annotations

from docs.generate.markdown import code, page_of, table
from doteval import errors
from doteval.cli.application import EXIT_CODES


def page() -> str:
    return page_of(
        "Exit codes",
        "Every command ends with one of these. Failed rows do not make a command fail: `--max-errors` and `--fail-under` "
        "do. Errors go to standard error: what happened and where, then what to do next.",
        table(["code", "meaning", "what to do"], [(each.code, each.meaning, each.remedy) for each in EXIT_CODES]),
        "In Python the same failures are the classes of `doteval.errors`, each with its `exit_code`:",
        table(["code", "errors"], [(number, ", ".join(map(code, names))) for number, names in _classes().items()]),
    )


def _classes() -> dict[int, list[str]]:
    """The names of the errors that end a command, by exit code."""
    found: dict[int, list[str]] = {}
    for name in errors.__all__:
        kind = getattr(errors, name)
        # Errors of one row or one resource end no command: they only inherit the exit code of their base class.
        if isinstance(kind, type) and issubclass(kind, errors.DotEvalError) and kind.exit_code != 1:
            found.setdefault(kind.exit_code, []).append(name)
    return dict(sorted(found.items()))
