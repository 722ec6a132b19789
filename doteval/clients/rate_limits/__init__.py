"""doteval/clients/rate_limits."""
