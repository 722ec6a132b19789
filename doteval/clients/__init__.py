"""What rows share and pay for: API clients on pooled connections, their usage, and a mock of OpenAI's API.

Nothing is imported from here at start-up: the `openai` package alone takes a good part of a second.
"""
