"""Sends traces by OpenTelemetry: a span for each command, row and model call, and an event for each score.

The only user of OpenTelemetry, which is an extra. Begin reading at `commands.py`; `spans.py` has the spans, and
`provider.py` sends them. It may import `core` and `errors`; what it offers to the runner and to clients is declared in
`doteval.core.tracing`.
"""
