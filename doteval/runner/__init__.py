"""doteval/runner."""
