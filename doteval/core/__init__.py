"""doteval/core."""
