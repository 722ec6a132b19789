"""doteval/submission."""
