"""Real processes are killed, paused and disconnected while an evaluation runs, and nothing may be lost."""
