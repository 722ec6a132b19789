"""The work of the subjects, written for others as their documentation has it. Nothing here imports doteval."""
