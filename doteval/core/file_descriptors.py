"""Notices that a process has no file descriptors left, which libraries report in many ways, and says what to do."""

from __future__ import annotations

import errno
import os
import resource

from doteval.core.error_leaves import chain, leaves

# Descriptors that a process of doteval needs beside those of requests in flight: files, the store, the broker.
_BASE = 100
# SQLite opens the database, the log, its index, and the directory for a moment.
_SQLITE_NEEDS = 4
_SPENT = (errno.EMFILE, errno.ENFILE)


def is_lack_of_descriptors(error: BaseException) -> bool:
    """Whether an exception, or one that it hides, says that there was no file descriptor left.

    Some clients, such as redis-py, give only the system's text.

    >>> lack = OSError(errno.EMFILE, "Too many open files")
    >>> is_lack_of_descriptors(lack), is_lack_of_descriptors(OSError(errno.ENOENT, "No such file"))
    (True, False)
    """
    return any(
        link.errno in _SPENT if isinstance(link, OSError) and link.errno is not None else _has_text(link)
        for leaf in leaves(error)
        for link in chain(leaf)
        if not isinstance(link, BaseExceptionGroup)
    )


def are_spent() -> bool:
    """Whether this process cannot open as many files now as SQLite needs, which does not say why it cannot."""
    opened: list[int] = []
    try:
        while len(opened) < _SQLITE_NEEDS:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _SPENT
    finally:
        for each in opened:
            os.close(each)
    return False


def how_to_raise() -> str:
    """What to do when the file descriptors are spent, with the limit of this process."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"Raise the limit of open files with `ulimit -n`, which is {limit} here: a process needs one for each request "
        f"in flight, as many as its concurrency, and about {_BASE} beside. Or lower --concurrency."
    )


def remedy_for(error: BaseException, otherwise: str) -> str:
    """What to do about an error: `otherwise`, or how to raise the limit if no file descriptor was left.

    >>> remedy_for(OSError(errno.ENOSPC, "No space left on device"), "Make room.")
    'Make room.'
    """
    return how_to_raise() if is_lack_of_descriptors(error) else otherwise


def _has_text(error: BaseException) -> bool:
    # Of the exceptions of a row only those of clients are asked for their text: an author's may say anything.
    root = type(error).__module__.partition(".")[0]
    return root in ("redis", "kombu", "psycopg") and os.strerror(errno.EMFILE) in str(error)
