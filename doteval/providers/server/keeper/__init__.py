"""The keeper: a small process that starts one model server, watches it, restarts it and stops it.

The first process that needs the server runs ``python -I -S keeper/__main__.py DIRECTORY``, with the settings as
JSON on standard input. The keeper detaches itself and is a child of none of the server's users. It imports only
the standard library and the modules of this package, so that it is up in a few hundredths of a second and stays
small. For that reason the modules here import each other relatively: in the keeper process this package is the
top-level package ``keeper``, and `doteval` is not imported at all.

**Users.** Each process that uses the server holds a connection to the Unix socket in DIRECTORY. The kernel closes the
connection when that process ends, however it ends, so counting users does not depend on process ids. When the last
user has left and no process is connecting, the keeper stops the server and exits.

**Connecting.** A process that connects holds a lock on the file ``lock`` until the keeper has sent its first
line. The keeper exits only while it holds that lock, and keeps it until the server is gone. Therefore no user
connects to a keeper that is exiting, and two servers of one directory never overlap.

**A killed keeper.** The kernel then kills the server (on Linux). The users kill what is left of the server's
process group and start another keeper; so does the next user that finds such remains.

**Messages** are lines of JSON. The keeper sends its status whenever it changes. A user first sends
``{"pid": ...}`` and at the end ``{"leave": true}``, and has left when the keeper closes the connection.

The entry is `__main__.main`; `keeper.Keeper` serves the users, `lifecycle.ServerLifecycle` decides when the server
is restarted, `managed_server.ManagedServer` is its process.
"""
