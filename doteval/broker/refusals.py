"""Says what to do when a broker refuses a connection or a command, and finds commands that a user may not run.

What is denied to a user can show late: a worker process that may not wait for messages would be ready and get none. So
a few commands that leave nothing behind are tried first.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis

from doteval.clients.redis_connection import key_prefix, redis_client
from doteval.core.broker_url import Broker
from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors
from doteval.core.redaction import without_arguments
from doteval.core.wording import plain
from doteval.errors import BrokerError, ResourceError

_ANY = "Check that it runs and that the URL, set by --broker or DOTEVAL_BROKER, is right."
_LOGIN = "Check the user and the password in the URL; in a password write / as %2F, # as %23 and @ as %40."
_TLS = "If this is the port for TLS, the URL begins with rediss://, else with redis://."
# Bounds what a server can put into a message; Redis explains its protected mode in 1,300 characters.
_LONGEST = 200
_NO_COMMAND = re.compile(r"no permissions to run the '([a-z|]+)' command")

# What to do, by a part of the text; the first that fits.
_REMEDIES = (
    ("invalid username-password", _LOGIN),
    ("wrongpass", _LOGIN),
    ("authentication required", "Put the password into the URL: redis://:PASSWORD@HOST:6379/0"),
    ("called without any password", "The server asks for no password: leave it out of the URL."),
    ("protected mode", "Give the server a password (CONFIG SET requirepass) and put it into the URL."),
    ("db index is out of range", "Give a database that the server has: 0 to 15, unless it is configured otherwise."),
    ("certificate verify failed", "Name the file of the authority that signed the certificate: ?ssl_ca_certs=PATH"),
    ("wrong version number", _TLS),
    ("connection reset by peer", _TLS),
    ("connection closed by server", _TLS),
    ("record layer failure", _TLS),
    ("timeout connecting to server", f"Check the host and the port. {_TLS}"),
    ("no master found", "Check master_name, and that the Sentinels know it and can be reached from here."),
    ("unknown command `sentinel`", "Give the port of the Sentinels, usually 26379."),
    ("max number of clients", "Raise its maxclients, and `ulimit -n` where it is started."),
    ("maxmemory", "Its memory is full: give it more, or wait until workers have taken messages."),
    ("read only replica", "Give the URL of the primary, or of the Sentinels, which know it."),
)  # fmt: skip
# The sections of the documentation about some of them; the others are about a broker that is not reached.
_PAGES = {
    "invalid username-password": "troubleshooting#broker-login",
    "wrongpass": "troubleshooting#broker-login",
    "authentication required": "troubleshooting#broker-login",
    "called without any password": "troubleshooting#broker-login",
    "maxmemory": "troubleshooting#broker-memory",
    "read only replica": "troubleshooting#broker-read-only",
}
_UNREACHABLE = "troubleshooting#broker-unreachable"


def broker_error(broker: Broker, error: BaseException) -> BrokerError:
    """The error for a broker that cannot be reached or refuses a command.

    >>> error = redis.AuthenticationError("invalid username-password pair or user is disabled.")
    >>> broker_error(Broker("redis://me:secret@host"), error).message
    'the broker redis://me:***@host cannot be used: invalid username-password pair or user is disabled.'
    >>> broker_error(Broker("redis://host?socket_timeout=5"), redis.TimeoutError("Timeout reading from socket")).message
    'the broker redis://host?socket_timeout=5 does not answer: nothing came for 5 s'
    """
    said = plain(without_arguments(str(error))).strip() or type(error).__name__
    low = said.lower()
    if (rule := _missing_rule(low, broker.connection.key_prefix)) is not None:
        return BrokerError(
            f"the user of the broker {broker} lacks a right: {said[:_LONGEST]}",
            remedy=_grant(broker, rule),
            page="troubleshooting#broker-login",
        )
    if is_lack_of_descriptors(error):
        return BrokerError(
            f"the broker {broker} cannot be reached: this process has too many files open",
            remedy=how_to_raise(),
            page="troubleshooting#too-many-files-open",
        )
    if _is_without_answer(error, low):
        return BrokerError(
            f"the broker {broker} does not answer: nothing came for {broker.connection.answer_seconds:g} s",
            remedy="It accepts connections, so look whether it is stopped, overloaded or cut off from here. "
            "To wait longer: doteval docs cli#broker-urls",
            page=_UNREACHABLE,
        )
    if "no master found" in low:
        # The rest of the text is the connection's inside.
        said = f"no master found for {broker.connection.master_name!r}"
    part, remedy = next((found for found in _REMEDIES if found[0] in low), ("", _ANY))
    known = remedy is not _ANY and remedy is not _TLS
    what = "cannot be used" if known else f"cannot be reached: {type(error).__name__}"
    page = _PAGES.get(part, _UNREACHABLE)
    return BrokerError(f"the broker {broker} {what}: {said[:_LONGEST]}", remedy=remedy, page=page)


def _is_without_answer(error: BaseException, said: str) -> bool:
    """Whether a broker took the connection and then said nothing. `said` is the error's text in lower case."""
    # redis-py's text, and py-amqp's error, which has none where the server did not answer a request.
    return "timeout reading from socket" in said or (isinstance(error, TimeoutError) and said == "timeouterror")


def check_rights(broker: Broker) -> None:
    """Check that the user in the URL of a Redis may run the commands that doteval needs. Leaves no key behind.

    Raises BrokerError: it may not; the remedy is the ACL line to run.
    """
    if not broker.is_pull_based or not broker.holds_shared_state:
        return
    prefix = key_prefix(broker.url)
    try:
        with redis_client(broker.url) as client:
            refused = list(_refused(client, f"{prefix}doteval.check.{secrets.token_hex(8)}"))
    except (redis.RedisError, ResourceError, OSError) as error:
        raise broker_error(broker, error) from error
    read_only = next((said for said in refused if "read only replica" in said.lower()), None)
    if read_only is not None:
        raise broker_error(broker, redis.ReadOnlyError(read_only))
    rules = dict.fromkeys(rule for said in refused if (rule := _missing_rule(said.lower(), prefix)) is not None)
    if rules:
        raise BrokerError(
            f"the user of the broker {broker} lacks rights that doteval needs: {' '.join(rules)}",
            remedy=_grant(broker, " ".join(rules)),
            page="troubleshooting#broker-login",
        )


def _refused(client: redis.Redis, name: str) -> Iterator[str]:
    """Try the commands that doteval uses, on keys that begin with `name`. Yields what the server says if it refuses."""
    a_list, a_hash, a_set, ordered = (f"{name}.{kind}" for kind in ("list", "hash", "set", "zset"))
    pipe = client.pipeline(transaction=False)
    commands: tuple[tuple[Any, ...], ...] = (
        ("LPUSH", a_list, "x"), ("RPUSH", a_list, "x"), ("LLEN", a_list), ("BRPOP", a_list, 1),
        ("HSET", a_hash, "f", "x"), ("HGET", a_hash, "f"), ("HDEL", a_hash, "f"),
        ("ZADD", ordered, 1, "x"), ("ZREVRANGEBYSCORE", ordered, 1, 1), ("ZREM", ordered, "x"),
        ("SADD", a_set, "x"), ("SMEMBERS", a_set), ("SREM", a_set, "x"),
        ("SET", name, "x", "EX", 60), ("GET", name),
        ("EVAL", "return 1", 0), ("EVALSHA", "0" * 40, 0), ("SCRIPT", "LOAD", "return 1"),
        ("PUBLISH", name, "x"), ("TIME",), ("DEL", name, a_list, a_hash, ordered, a_set),
    )  # fmt: skip
    for command in commands:
        pipe.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py has no types here
    yield from (str(reply) for reply in pipe.execute(raise_on_error=False) if isinstance(reply, redis.ResponseError))
    for action in (_subscribe, _transaction):
        try:
            action(client, name)
        except redis.ResponseError as error:
            yield str(error)


def _missing_rule(said: str, prefix: str) -> str | None:
    """The ACL rule whose lack a reply of Redis names, in lower case; None if it is about something else."""
    if "without multi" in said:
        return "+multi"
    if (found := _NO_COMMAND.search(said)) is not None:
        return f"+{found[1]}"
    if "no permissions to" not in said:
        return None
    return f"&{prefix}*" if "channel" in said else f"~{prefix}*"


def _subscribe(client: redis.Redis, name: str) -> None:
    with client.pubsub() as listener:  # type: ignore[no-untyped-call] # redis-py has no types here
        listener.subscribe(name)
        listener.get_message(timeout=1.0)


def _transaction(client: redis.Redis, _: str) -> None:
    with client.pipeline(transaction=True) as pipe:
        pipe.ping()
        pipe.execute()


def _grant(broker: Broker, rules: str) -> str:
    user = urlsplit(broker.url.partition(";")[0]).username or "default"
    needs = "what doteval needs: doteval docs cli#broker-urls"
    return f"As an administrator of Redis, run: ACL SETUSER {user} {rules} ({needs})"
