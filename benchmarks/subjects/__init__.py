"""One module for each question that is measured; ``measure(bench)`` answers it."""
