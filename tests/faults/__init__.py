"""What a long batch meets: real processes are killed, paused and cut off, and nothing may be lost."""
