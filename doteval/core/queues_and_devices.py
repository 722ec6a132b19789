"""Reads the names of queues and devices, which decide where an evaluation runs.

The row tasks of an evaluation travel on one queue; a worker process serves one or several queues, and sees one device,
which ``CUDA_VISIBLE_DEVICES`` names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from doteval.errors import UsageError

DEFAULT_QUEUE = "doteval"

# CUDA reads it when a process first uses it.
DEVICES_VARIABLE = "CUDA_VISIBLE_DEVICES"

# "~" separates the name of a queue from that of its fair queue, and AMQP allows 255 bytes for both.
_QUEUE = re.compile(r"[^\s,~\x00-\x1f\x7f]{1,200}")
# A device has a number or a UUID, as `nvidia-smi -L` lists them; a part of a device begins with MIG.
_DEVICE = re.compile(r"[0-9]{1,4}|(?:GPU|MIG)-[0-9A-Za-z/-]{1,120}")
_SHOWN = 40


def check_queue(name: object) -> str:
    """Return the name of a queue. Raises UsageError: it cannot be one."""
    if not isinstance(name, str) or not _QUEUE.fullmatch(name):
        raise UsageError(
            f"{_short(name)} is no name of a queue",
            remedy='A queue has a name like "gpu": without spaces, commas and "~", and not longer than 200 characters.',
        )
    return name


def split_queues(text: str) -> tuple[str, ...]:
    """Read a list of queues. Raises UsageError: a name cannot be one, or appears twice.

    >>> split_queues("gpu, doteval")
    ('gpu', 'doteval')
    """
    return _different([check_queue(part.strip()) for part in text.split(",")], "queue")


def split_devices(text: str) -> tuple[str, ...]:
    """Read a list of devices. Raises UsageError: a name cannot be one, or appears twice.

    >>> split_devices("0, 1")
    ('0', '1')
    """
    devices = [part.strip() for part in text.split(",")]
    for device in devices:
        if not _DEVICE.fullmatch(device):
            raise UsageError(
                f"{_short(device)} is no device",
                remedy="Give numbers or UUIDs with commas between, as `nvidia-smi -L` lists them: 0,1,2,3",
            )
    return _different(devices, "device")


def device_of(devices: Sequence[str], number: int) -> str | None:
    """The device of worker process `number`, counted from 1; None if there are no devices.

    >>> [device_of(["0", "1"], number) for number in (1, 2, 3)]
    ['0', '1', '0']
    """
    return devices[(number - 1) % len(devices)] if devices else None


def worker_command_for(queue: str) -> str:
    """The command that starts a worker service for a queue."""
    return "doteval worker PATH" if queue == DEFAULT_QUEUE else f"doteval worker PATH --queue {queue}"


def _different(names: Sequence[str], what: str) -> tuple[str, ...]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"the {what} {_short(twice)} is named twice", remedy=f"Name each {what} once.")
    return tuple(names)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
