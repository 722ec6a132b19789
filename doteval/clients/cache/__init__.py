"""The reply cache that worker processes share, in which each reply is requested once.

Entry: `step.cache_step`, which answers a request from the cache. `keys` decides which requests may be cached and which
are the same; `reply_cache.ReplyCache` leases missing replies to one caller; replies and leases are in a SQLite file
(`sqlite.SQLiteStorage`) or in Redis (`redis.RedisStorage`).

Imports `doteval.clients` modules for steps, streams, usage and Redis, `doteval.core` and `doteval.errors`.
"""
