"""The doctor: looks at everything that a submission needs, and says what to do about what is not well."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from doteval.errors import BrokerError, DotEvalError, NotFoundError
from doteval.execution.embedded import Collected, with_collected
from doteval.queue.embedded_redis import find_redis_binary
from doteval.queue.inspection import RedisFacts, inspect_redis
from doteval.queue.publisher import Publisher
from doteval.store import Store, WorkerState
from doteval.urls import hide_password

# Seconds by which clocks may differ before times in tables mislead people.
_SKEW = 2.0
_COMPARED = ("doteval", "celery", "pytest")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `text` is what was found, `remedy` what to do if it is not `well`."""

    name: str
    well: bool
    text: str
    remedy: str | None = None


def examine(paths: tuple[str, ...], *, storage: str | None, broker: str | None, queue: str) -> Iterator[Finding]:
    """Look at the broker, the result store, the worker processes and the evaluation files, in this order."""
    queued: int | None = None
    if broker is None:
        yield _private_redis()
    else:
        queued, findings = _broker(broker, queue)
        yield from findings
    yield from _store(storage, queue, needs_workers=broker is not None, queued=queued)
    yield _evaluations(paths)


def _private_redis() -> Finding:
    try:
        binary = find_redis_binary()
    except BrokerError as error:
        return _problem("broker", error)
    return Finding("broker", True, f"none is set: each submission starts a private Redis ({binary.name})")


def _broker(broker: str, queue: str) -> tuple[int | None, list[Finding]]:
    with closing(Publisher(broker, queue)) as publisher:
        try:
            publisher.connect()
            queued = publisher.queued()
            facts = inspect_redis(broker, queue)
        except DotEvalError as error:
            return None, [_problem("broker", error)]
    findings = [Finding("broker", True, f"{hide_password(broker)} answers; {_few(queued, 'message')} in {queue!r}")]
    if facts is not None:
        findings += _redis(facts)
    return queued, findings


def _redis(facts: RedisFacts) -> list[Finding]:
    policy, kept = facts.maxmemory_policy, facts.appendonly
    return [
        Finding(
            "redis memory",
            policy in (None, "noeviction"),
            "the server does not tell its maxmemory-policy" if policy is None else f"maxmemory-policy is {policy}",
            "When memory is full it would throw messages away: CONFIG SET maxmemory-policy noeviction",
        ),
        Finding(
            "redis disk",
            kept in (None, "yes"),
            "the server does not tell its appendonly" if kept is None else f"appendonly is {kept}",
            "A restart would lose what is queued, and its rows would be published again: CONFIG SET appendonly yes",
        ),
        _clock("redis clock", facts.clock_offset),
    ]


def _store(storage: str | None, queue: str, *, needs_workers: bool, queued: int | None) -> Iterator[Finding]:
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
            # To open it would make tables or bring a SQLite file forward, and looking shall change nothing.
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
            yield from _workers(store, queue, needs_workers=needs_workers, queued=queued)
    except DotEvalError as error:
        yield _problem("schema", error)


_START = "Start some: doteval worker PATH --broker URL --storage URL"


def _workers(store: Store, queue: str, *, needs_workers: bool, queued: int | None) -> Iterator[Finding]:
    live = [worker for worker in store.workers.live() if queue in worker.info.queues]
    said = f"{_few(len(live), 'live worker process', 'es')} on {queue!r}"
    if live or not needs_workers:
        yield Finding("workers", True, said if live else "none live; a submission without a broker starts its own")
    else:
        waiting = f", and {_few(queued, 'message')} wait" if queued else ""
        yield Finding("workers", False, f"{said}{waiting}", _START)
    differing = [text for worker in live if (text := _difference(worker))]
    if differing:
        remedy = "Install the same versions everywhere, and restart the workers."
        yield Finding("versions", False, "; ".join(differing), remedy)
    elif live:
        yield Finding("versions", True, "worker processes have the versions of this machine")


def _difference(worker: WorkerState) -> str:
    theirs = worker.info.versions or {}
    differing = [
        f"{name} {theirs[name]} (here {ours})"
        for name in _COMPARED
        if name in theirs and theirs[name] != (ours := importlib.metadata.version(name))
    ]
    return f"{worker.info.service} has {', '.join(differing)}" if differing else ""


def _evaluations(paths: tuple[str, ...]) -> Finding:
    if not paths:
        return Finding("evaluations", True, "not looked at: name a PATH")
    found: list[int] = []

    def count(collected: Collected) -> None:
        found.append(len(collected.items))

    try:
        with_collected(paths, count)
    except DotEvalError as error:
        return _problem("evaluations", error)
    return Finding("evaluations", True, f"{_few(found[0], 'evaluation')} below {', '.join(paths)}")


def _clock(name: str, offset: float) -> Finding:
    side = "ahead of" if offset > 0 else "behind"
    text = f"{abs(offset):.1f} s {side} this machine's" if abs(offset) >= 0.1 else "agrees with this machine's"
    return Finding(name, abs(offset) <= _SKEW, text, "Set the clocks by NTP on all machines.")


def _problem(name: str, error: DotEvalError) -> Finding:
    return Finding(name, False, error.message, error.remedy)


def _few(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun if number == 1 else noun + plural}"
