"""doteval/providers/server."""
