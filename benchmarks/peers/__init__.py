"""The work of the subjects for other runners, written as their documentation shows. Nothing here imports doteval."""
