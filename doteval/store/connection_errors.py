"""Says what to do when PostgreSQL, or a pooler before it, refuses a connection.

A refused connection has no error code in psycopg 3.3, only the text of the server, of PgBouncer or of libpq. A server
may speak another language than English; then the text is shown with a remedy that is always right.
"""

from __future__ import annotations

import re

from doteval.store.url import Location

# Bounds what a server can put into a message.
_LONGEST = 500

_ANY = "Check the URL, and that PostgreSQL runs and can be reached from here."
_CREATE_ROLE = "As an administrator, run: CREATE ROLE {user} LOGIN PASSWORD '...'. Or check the user in the URL."
_LOGIN = "Check the user and the password in the URL; in a password write / as %2F, @ as %40 and : as %3A."
_AUTHORITY = "Name the file of the authority that signed the server's certificate: ?sslrootcert=PATH"
_TOO_MANY = (
    "Try again when others have ended. For more connections raise max_connections of PostgreSQL, or max_client_conn of "
    "PgBouncer; `doteval docs guides/pgbouncer` says how many doteval needs."
)

# What to do, by a part of the text; the first that fits. Those of PgBouncer differ between its versions.
_REMEDIES: tuple[tuple[str, str], ...] = (
    ("password authentication failed", _LOGIN),
    ("sasl authentication failed", _LOGIN),
    ("auth failed", _LOGIN),
    ("no password supplied", "Put the password into the URL: postgresql://USER:PASSWORD@HOST/NAME"),
    ("is not permitted to log in", "As an administrator, run: ALTER ROLE {user} LOGIN"),
    ("no such user", "Add {user} to PgBouncer's auth_file, or set its auth_query."),
    ("no such database", "Add {database} to [databases] of PgBouncer, or check the name in the URL."),
    ("permission denied for database", "As an administrator, run: GRANT CONNECT ON DATABASE {database} TO {user}"),
    ("no encryption", "Add ?sslmode=require to the URL: the server takes only connections with TLS from here."),
    ("no pg_hba.conf entry", "Allow this user, database and address in the server's pg_hba.conf, and reload it."),
    ("server does not support ssl", "Leave sslmode out of the URL, or turn on TLS at the server."),
    ("ssl required", "Add ?sslmode=require to the URL."),
    ("does not match host name", "Give the host by the name that is in the server's certificate."),
    ("root certificate", _AUTHORITY),
    ("certificate verify failed", _AUTHORITY),
    ("unsupported startup parameter", "Leave it out of the URL, or list it in PgBouncer's ignore_startup_parameters."),
    ("too many clients", _TOO_MANY),
    ("too many connections", _TOO_MANY),
    ("remaining connection slots", _TOO_MANY),
    ("no more connections allowed", _TOO_MANY),
    ("query_wait_timeout", "PgBouncer had no free connection to PostgreSQL: raise its default_pool_size."),
    ("the database system is", "Try again when it is up."),
    ("to ssl negotiation", "Something else than PostgreSQL listens there: check the port."),
    ("invalid ", "Correct this parameter of the URL."),
)
_MISSING = (
    (re.compile(r'database "[^"]*" does not exist'), "Create it first: createdb {database}"),
    (re.compile(r'role "[^"]*" does not exist'), _CREATE_ROLE),
)


def said_and_remedy(text: str, location: Location) -> tuple[str, str]:
    """The line of a refusal that says why, and what to do about it.

    >>> from doteval.store.url import locate
    >>> text = 'connection to server at "db" failed: FATAL:  database "evals" does not exist'
    >>> said_and_remedy(text, locate("postgresql://me@db/evals"))[1]
    'Create it first: createdb evals'
    """
    lines = [line.strip() for line in text[: 4 * _LONGEST].splitlines() if line.strip()]
    # Of several attempts, as with and without TLS, the one that reached a server says most.
    line = next((each for each in lines if "FATAL" in each), lines[0] if lines else "the connection was lost")
    low = line.lower()
    remedy = next((remedy for part, remedy in _REMEDIES if part in low), None)
    remedy = remedy or next((remedy for pattern, remedy in _MISSING if pattern.search(line)), _ANY)
    line = line.removeprefix("connection failed: ").removeprefix("connection is bad: ")
    return line[:_LONGEST], remedy.format(user=role_of(location), database=location.url.database or "NAME")


def role_of(location: Location) -> str:
    """The role in a URL as SQL has it, USER if the URL leaves it to libpq."""
    name = location.url.username or location.url.query.get("user")
    if not isinstance(name, str):
        return "USER"
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"{}"'.format(name.replace('"', '""'))
