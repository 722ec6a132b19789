"""Model servers: one server for each command, shared by all processes of a user on one machine.

The entry is `provider.ServerProvider`. Each process that uses a server holds a `connection.ServerConnection` to
the server's keeper, a process of its own (`keeper`), in a private directory (`directory`). May import what
`doteval.providers` may; `keeper` imports the standard library only.
"""
