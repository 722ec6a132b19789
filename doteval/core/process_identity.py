"""What identifies a process: a random token, which it makes for itself.

A hostname and a pid do not: containers of one image, virtual machines of one image and pid namespaces have the same
ones, and a machine uses a pid again. They are shown to people and decide nothing across machines.
"""

from __future__ import annotations

import secrets
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def new_token() -> str:
    """A random token. Each registration of a process in the store has one of its own.

    >>> new_token() == new_token()
    False
    """
    return secrets.token_hex(16)


def pid_space() -> str | None:
    """Where the pid of this process means something: one start of one kernel, and one pid namespace.

    Two processes with the same value see each other's pids. None where the system does not say.

    >>> pid_space() == pid_space()
    True
    """
    try:
        return f"{_BOOT.read_text(encoding='ascii').strip()} {_NAMESPACE.readlink()}"
    except OSError:
        # Not Linux, or /proc is hidden.
        return None
