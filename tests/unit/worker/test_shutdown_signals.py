"""Signals are heard while the main thread runs a row, whatever the row does with signals. In a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import asyncio, ctypes, json, os, queue, signal, sys, threading
from doteval.worker.shutdown_signals import ShutdownSignals

heard, found = queue.Queue(), {}
ShutdownSignals({n: lambda n=n: heard.put(n.name) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}).install()

def send(number):
    os.kill(os.getpid(), number)
    return heard.get(timeout=120)

# Each is heard once, and the row's own alarm is not one of them.
found["three"] = [send(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)]
signal.signal(signal.SIGALRM, lambda *_: found.update(alarm="rang"))
signal.raise_signal(signal.SIGALRM)

# A wait in C code, during which no Python runs on this thread. Another thread ends it when the signal was heard.
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
def end_the_wait():
    found["in C"] = send(signal.SIGTERM)
    libc.pthread_mutex_unlock(mutex)
threading.Thread(target=end_the_wait).start()
libc.pthread_mutex_lock(mutex)

# An event loop of the row takes the place that signals are written to, and afterwards leaves it empty.
async def with_handler():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    os.kill(os.getpid(), signal.SIGTERM)
    while heard.empty():
        await asyncio.sleep(0)
    taken = heard.get()
    loop.remove_signal_handler(signal.SIGUSR1)
    return taken
found["loop"] = asyncio.run(with_handler())
found["after the loop"] = [send(signal.SIGTERM), send(signal.SIGINT)]

# A process that the row forks ends by signals as in plain pytest, and this one does not hear of them.
def forked(number):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, b"x")
            signal.pause()
        except KeyboardInterrupt:
            os._exit(33)
    os.read(reading, 1)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def forked_and_killed_at_once():
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
found["at once"] = {forked_and_killed_at_once() for _ in range(20)} == {-signal.SIGTERM}
found["forked"] = [forked(number) for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)]
found["last"] = [send(signal.SIGQUIT), heard.qsize()]
print(json.dumps(found))
"""


def test_signals_are_heard_whatever_the_main_thread_does() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "three": ["SIGTERM", "SIGINT", "SIGQUIT"],
        "alarm": "rang",
        "in C": "SIGTERM",
        "loop": "SIGTERM",
        "after the loop": ["SIGTERM", "SIGINT"],
        "at once": True,
        "forked": [-15, -3, 33],
        "last": ["SIGQUIT", 0],
    }
