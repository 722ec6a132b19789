"""`examine` checks everything that a submission needs, and says what to do about each problem."""

from __future__ import annotations

import importlib.metadata
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from doteval.broker.embedded_redis import find_redis_binary
from doteval.broker.inspection import RedisFacts, inspect_redis
from doteval.broker.publisher import Publisher
from doteval.core.broker_url import Broker
from doteval.core.process_identity import pid_space
from doteval.core.queues_and_devices import DEFAULT_QUEUE, worker_command_for
from doteval.core.wording import counted
from doteval.errors import BrokerError, DotEvalError, NotFoundError
from doteval.pytest_runtime.embedded_session import Collected, with_collected
from doteval.pytest_runtime.fingerprint import differing_on_disk, fingerprint, two_hashes, unread_files
from doteval.pytest_runtime.items import queue_of
from doteval.store import Store, WorkerState

# Seconds by which clocks may differ before times in tables mislead.
_SKEW_SECONDS = 2.0
_NTP = "Set the clocks by NTP on all machines."
_COMPARED = ("doteval", "celery", "pytest")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: `text` is what was found, `remedy` what to do if it is not `well`."""

    name: str
    well: bool
    text: str
    remedy: str | None = None


def examine(
    paths: tuple[str, ...], *, storage: str | None, broker: Broker | None, queues: tuple[str, ...]
) -> Iterator[Finding]:
    """Check the broker, the result store, the worker processes and the evaluation files, in this order.

    Worker processes are looked for on `queues`, and on the queues that marks of the evaluations name.
    """
    queued: dict[str, int] = {}
    if broker is None:
        yield _private_redis()
    else:
        queued, findings = _broker(broker, queues)
        yield from findings
    live: list[WorkerState] = []
    yield from _store(storage, queues, live, needs_workers=broker is not None, queued=queued)
    named: set[str] = set()
    fingerprints: dict[str, Mapping[str, str]] = {}
    yield _evaluations(paths, named, fingerprints)
    if broker is not None:
        for queue in sorted(named.difference(queues)):
            yield _serving(f"workers on {queue!r}", queue, live, needs_workers=True)
        yield from _code(fingerprints, [worker for worker in live if {*queues, *named} & set(worker.info.queues)])


def _private_redis() -> Finding:
    try:
        binary = find_redis_binary()
    except BrokerError as error:
        return _problem("broker", error)
    return Finding("broker", True, f"none is set: each submission starts a private Redis ({binary.name})")


def _broker(broker: Broker, queues: tuple[str, ...]) -> tuple[dict[str, int], list[Finding]]:
    try:
        with closing(Publisher(broker, queues[0])) as publisher:
            publisher.connect()
            queued = {queue: publisher.queued(queue=queue) for queue in queues}
            facts = inspect_redis(broker, queues[0])
    except DotEvalError as error:
        return {}, [_problem("broker", error)]
    waiting = ", ".join(f"{counted(number, 'message')} in {queue!r}" for queue, number in queued.items())
    findings = [Finding("broker", True, f"{broker} answers; {waiting}")]
    if facts is not None:
        findings += _redis(facts)
    return queued, findings


# A managed server may refuse all the same.
_ASK = "in Redis, ACL SETUSER NAME +config|get lets a user ask"


def _redis(facts: RedisFacts) -> list[Finding]:
    policy, kept = facts.maxmemory_policy, facts.appendonly
    return [
        Finding(
            "redis memory",
            policy in (None, "noeviction"),
            f"the server does not tell its maxmemory-policy; {_ASK}"
            if policy is None
            else f"maxmemory-policy is {policy}",
            "When memory is full it would throw messages away: CONFIG SET maxmemory-policy noeviction",
        ),
        Finding(
            "redis disk",
            kept in (None, "yes"),
            f"the server does not tell its appendonly; {_ASK}" if kept is None else f"appendonly is {kept}",
            "A restart would lose what is queued, and its rows would be published again: CONFIG SET appendonly yes",
        ),
        _clock("redis clock", facts.clock_offset),
    ]


def _store(
    storage: str | None,
    queues: tuple[str, ...],
    live: list[WorkerState],
    *,
    needs_workers: bool,
    queued: dict[str, int],
) -> Iterator[Finding]:
    """Check the store and the worker processes in it. Adds the live ones to `live`."""
    try:
        found, newest = Store.versions(storage)
    except NotFoundError as error:
        yield Finding("result store", True, f"{error.message} yet: the first evaluation makes it")
        if needs_workers:
            yield Finding("workers", False, "none can be known without a result store", _START)
        return
    except DotEvalError as error:
        yield _problem("result store", error)
        return
    try:
        if found is None or (found < newest and not (storage or "").startswith("postgres")):
            # Opening it would create tables or upgrade a SQLite file, and a check must change nothing.
            text = "no tables yet: the first evaluation makes them"
            older = f"version {found}; the next command that opens it copies the file and makes it {newest}"
            yield Finding("schema", True, text if found is None else older)
            return
        with Store.open(storage, create=False) as store:
            yield Finding("schema", True, f"version {newest}, the newest")
            try:
                store.check_writable()
                yield Finding("result store", True, f"{store.url} can be read and written")
            except DotEvalError as error:
                yield _problem("result store", error)
            yield _clock("store clock", store.clock_offset())
            live += store.workers.live()
            yield from _workers(live, queues, needs_workers=needs_workers, queued=queued)
    except DotEvalError as error:
        yield _problem("schema", error)


_START = f"Start some: {worker_command_for(DEFAULT_QUEUE)} --broker URL --storage URL"


def _workers(
    all_live: Sequence[WorkerState], queues: tuple[str, ...], *, needs_workers: bool, queued: dict[str, int]
) -> Iterator[Finding]:
    live = [worker for worker in all_live if set(queues) & set(worker.info.queues)]
    if not live and not needs_workers:
        yield Finding("workers", True, "none live; a submission without a broker starts its own")
    for number, queue in enumerate(queues if live or needs_workers else ()):
        name = f"workers on {queue!r}" if number else "workers"
        yield _serving(name, queue, live, needs_workers=needs_workers, queued=queued.get(queue, 0))
    if live:
        yield _worker_clocks(live)
    differing = [text for worker in live if (text := _difference(worker))]
    if differing:
        remedy = "Install the same versions everywhere, and restart the workers."
        yield Finding("versions", False, "; ".join(differing), remedy)
    elif live:
        yield Finding("versions", True, "worker processes have the versions of this machine")


def _serving(name: str, queue: str, live: Sequence[WorkerState], *, needs_workers: bool, queued: int = 0) -> Finding:
    count = sum(queue in worker.info.queues for worker in live)
    waiting = f", and {counted(queued, 'message waits', 'messages wait')}" if queued and not count else ""
    remedy = f"Start some: {worker_command_for(queue)} --broker URL --storage URL"
    said = f"{counted(count, 'live worker process')} on {queue!r}{waiting}"
    return Finding(name, bool(count) or not needs_workers, said, remedy)


def _worker_clocks(live: list[WorkerState]) -> Finding:
    offsets = [(worker.info.service, worker.clock_offset) for worker in live if worker.clock_offset is not None]
    wrong = [
        f"{service} is {_offset(offset)} the store's" for service, offset in offsets if abs(offset) > _SKEW_SECONDS
    ]
    text = "; ".join(wrong) if wrong else "worker processes agree with the store's"
    return Finding("worker clocks", not wrong, text, _NTP)


def _difference(worker: WorkerState) -> str:
    theirs = worker.info.versions or {}
    differing = [
        f"{name} {theirs[name]} (here {ours})"
        for name in _COMPARED
        if name in theirs and theirs[name] != (ours := importlib.metadata.version(name))
    ]
    return f"{worker.info.service} has {', '.join(differing)}" if differing else ""


def _evaluations(paths: tuple[str, ...], named: set[str], fingerprints: dict[str, Mapping[str, str]]) -> Finding:
    """Check that the evaluation files can be collected.

    Adds the queues that their marks name to `named`, and to `fingerprints` the files that each evaluation file needs.
    """
    if not paths:
        return Finding("evaluations", True, "not looked at: name a PATH")
    found: list[int] = []

    def count(collected: Collected) -> None:
        found.append(len(collected.items))
        fingerprints.update((item.evaluation_path, fingerprint(item)) for item in collected.items)
        named.update(queue for item in collected.items if (queue := queue_of(item)) is not None)

    try:
        with_collected(paths, count)
    except DotEvalError as error:
        return _problem("evaluations", error)
    return Finding("evaluations", True, f"{counted(found[0], 'evaluation')} below {', '.join(paths)}")


def _code(fingerprints: Mapping[str, Mapping[str, str]], live: Sequence[WorkerState]) -> Iterator[Finding]:
    """Compare the evaluation files with those that each worker process has read."""
    same = 0
    for worker in live:
        code = worker.code
        if code is None:
            continue
        unread = {
            file: two_hashes(file, code.files, theirs)
            for theirs in fingerprints.values()
            for file in unread_files(theirs, code.files)
        }
        if not unread:
            same += 1
            continue
        hashes = ", ".join(f"{file} ({theirs}, here {ours})" for file, (theirs, ours) in unread.items())
        what = f"{worker.info.service} (process {worker.info.pid}) has read other files: {hashes}"
        name = f"files of {worker.info.service}"
        if not code.reloads:
            yield Finding(name, False, f"{what}; restart needed", "Bring the same files there, and restart it.")
        elif (worker.info.hostname, worker.info.pid_space) != (socket.gethostname(), pid_space()):
            yield Finding(name, True, f"{what}; will reload when idle, if its machine has these files")
        elif _differ_at(Path(code.root), fingerprints):
            yield Finding(
                name, False, f"{what}; those below {code.root} differ too", f"Bring the same files to {code.root}."
            )
        else:
            yield Finding(name, True, f"{what}; will reload when it is idle and a submission needs it")
    if same and fingerprints:
        who = counted(same, "worker process has", "worker processes have")
        yield Finding("worker files", True, f"{who} the same files")


def _differ_at(root: Path, fingerprints: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether files differ from those on this machine below the root directory of a worker process."""
    folders = [root, *root.parents]
    return any(differing_on_disk(theirs, path, folders) for path, theirs in fingerprints.items())


def _clock(name: str, offset: float) -> Finding:
    text = f"{_offset(offset)} this machine's" if abs(offset) >= 0.1 else "agrees with this machine's"
    return Finding(name, abs(offset) <= _SKEW_SECONDS, text, _NTP)


def _offset(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"


def _problem(name: str, error: DotEvalError) -> Finding:
    return Finding(name, False, error.message, error.remedy)
