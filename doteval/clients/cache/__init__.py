"""doteval/clients/cache."""
