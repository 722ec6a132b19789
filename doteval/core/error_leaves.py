"""Finds the errors that another error hides: those in exception groups, and those in chains of causes."""

from __future__ import annotations

from collections.abc import Iterator

from doteval.errors import DotEvalError

_LINE_CHARACTERS = 300


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in an exception group, of whatever depth, in order; the error itself if it is no group.

    >>> leaves(ExceptionGroup("tasks", [KeyError("a"), ExceptionGroup("inner", [ValueError("b")])]))
    [KeyError('a'), ValueError('b')]
    """
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for each in error.exceptions for leaf in leaves(each)]


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause (``raise ... from cause``), the cause of that, and so on.

    urllib names the cause of its errors `reason`.

    >>> wrapper = RuntimeError("no reply")
    >>> wrapper.__cause__ = ConnectionError("refused")
    >>> list(chain(wrapper))
    [RuntimeError('no reply'), ConnectionError('refused')]
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        reason = getattr(link, "reason", None)
        link = link.__cause__ or (reason if isinstance(reason, BaseException) else None)


def message_of(error: BaseException) -> str:
    """The message of an error, its repr if it has none."""
    return _text(error) or repr(error)


def in_one_line(error: BaseException) -> str:
    """The type and the first line of the message of the error, or of the first error in a group.

    >>> in_one_line(ExceptionGroup("unhandled errors in a TaskGroup", [ConnectionError("refused")]))
    'ConnectionError: refused'
    """
    leaf = leaves(error)[0]
    first_line = _text(leaf).strip().partition("\n")[0][:_LINE_CHARACTERS]
    return f"{type(leaf).__qualname__}: {first_line}".removesuffix(": ")


def for_logs(error: BaseException) -> str:
    """What logs say of an exception: its type, and the message if it is one of doteval's own.

    The text of other exceptions may hold secrets or contents of rows.

    >>> for_logs(RuntimeError("cannot log in with hunter2"))
    'RuntimeError'
    """
    leaf = leaves(error)[0]
    said = f": {leaf.logged}" if isinstance(leaf, DotEvalError) else ""
    return f"{type(leaf).__qualname__}{said}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as unprintable:  # noqa: BLE001 - an exception may have a __str__ that raises
        return f"<the message cannot be shown: its __str__ raised {type(unprintable).__name__}>"
