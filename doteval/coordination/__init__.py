"""doteval/coordination."""
