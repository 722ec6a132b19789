"""Real services that tests use: each module gives pytest fixtures, imported by the conftest that wants them."""
