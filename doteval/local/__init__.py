"""doteval/local."""
