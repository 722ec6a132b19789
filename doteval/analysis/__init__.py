"""doteval/analysis."""
