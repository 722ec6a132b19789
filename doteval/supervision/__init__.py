"""doteval/supervision."""
