"""doteval's tests."""
