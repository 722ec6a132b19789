"""Reads the state of processes from /proc."""

from __future__ import annotations

from pathlib import Path


def stat_fields(process: Path) -> list[str]:
    """The fields of /proc/PID/stat that follow the name: state, parent and so on. `process` is a directory in /proc."""
    # The name may contain spaces.
    return (process / "stat").read_text().rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        return stat_fields(Path(f"/proc/{pid}"))[0] != "Z"
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    """Whether all threads of a process are stopped, after SIGSTOP."""
    return all(stat_fields(thread)[0] == "T" for thread in Path(f"/proc/{pid}/task").iterdir())
