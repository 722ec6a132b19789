"""The questions that are measured. Each is a module whose function ``measure(bench)`` answers it."""
