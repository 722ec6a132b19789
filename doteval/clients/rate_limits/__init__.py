"""Rate limits of model APIs: requests and tokens a minute, shared by all worker processes.

Entry: `step.rate_limit_step`, which holds a request back until it may be sent. Behind it, `limiter.RateLimiter` queues
the requests of this process, `adaptive_window` bounds those in flight, and `rate_limit.RateLimit` decides how many may
be sent: in this process (`LocalRateLimits`) or in Redis for all of them (`redis.RedisRateLimits`, ``rate_limit.lua``).

Imports `doteval.clients` modules for steps, streams, usage and Redis, `doteval.core` and `doteval.errors`.
"""
