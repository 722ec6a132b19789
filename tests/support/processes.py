"""What Linux says of processes."""

from __future__ import annotations

from pathlib import Path


def kernel_words(process: Path) -> list[str]:
    """Of a process or thread, by its directory in /proc: its state, its parent, ..."""
    # After the name, which may hold spaces.
    return (process / "stat").read_text().rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that has, and that nobody has waited for, does not count."""
    try:
        return kernel_words(Path(f"/proc/{pid}"))[0] != "Z"
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    """Whether all threads of a process stand still, after SIGSTOP."""
    return all(kernel_words(thread)[0] == "T" for thread in Path(f"/proc/{pid}/task").iterdir())
