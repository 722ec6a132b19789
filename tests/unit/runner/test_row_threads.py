"""Threads for rows start as they are needed, and do not keep the process from ending."""

from __future__ import annotations

import threading

from doteval.runner.row_threads import RowThreads


def test_calls_overlap_in_as_many_threads_as_are_needed() -> None:
    threads = RowThreads(3)
    together = threading.Barrier(3, timeout=30)
    seen: set[str] = set()
    ended = threading.Semaphore(0)

    def alone() -> None:
        seen.add(threading.current_thread().name)
        ended.release()

    def meet() -> None:
        assert threading.current_thread().daemon
        together.wait()
        ended.release()

    threads.submit(alone)
    assert ended.acquire(timeout=30)
    assert seen == {"doteval-row_0"}
    for _ in range(3):
        threads.submit(meet)
    assert all(ended.acquire(timeout=30) for _ in range(3))
    for _ in range(20):
        threads.submit(alone)
    assert all(ended.acquire(timeout=30) for _ in range(20))
    assert seen <= {"doteval-row_0", "doteval-row_1", "doteval-row_2"}
    threads.close()
    assert not any(each.name in seen for each in threading.enumerate())
