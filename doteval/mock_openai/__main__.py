"""``python -m doteval.mock_openai`` serves until it is stopped. The first line it prints is the base URL.

With a command behind the options it serves for that command, and ends with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from types import FrameType

from doteval.core.liveness import is_orphaned
from doteval.errors import ResourceError
from doteval.mock_openai import faults
from doteval.mock_openai.process import MockOpenAI
from doteval.mock_openai.server import serving
from doteval.mock_openai.settings import MockSettings

_PARENT_CHECK_SECONDS = 0.5


def _parse(arguments: Sequence[str]) -> tuple[MockSettings, int | None, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m doteval.mock_openai",
        description=(
            "Serve OpenAI's API with made-up replies: chat completions, responses, embeddings, files and batches.\n\n"
            "example:\n  python -m doteval.mock_openai --port 8000 --latency 0.1 --fault status:500@0.05\n"
            "  python -m doteval.mock_openai --latency 0.1 doteval submit . --experiment try"
        ),
        epilog=faults.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # An option of the command, such as --batch, may be the beginning of one of ours.
        allow_abbrev=False,
    )
    default = MockSettings()
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port, help="0 (the default) picks a free port")
    parser.add_argument("--latency", type=float, default=default.latency, help="seconds until a reply")
    parser.add_argument(
        "--latency-sigma",
        type=float,
        default=default.latency_sigma,
        help="sigma of a lognormal latency, whose median --latency then is",
    )
    parser.add_argument("--seed", type=int, default=default.seed, help="of latencies, faults and the order in batches")
    parser.add_argument("--rate-limit", type=float, default=default.rate_limit, help="requests per second, 0 for none")
    parser.add_argument(
        "--rate-limit-headers", type=int, default=default.rate_limit_headers, help="0 to send no rate limit headers"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        dest="faults",
        help="a fault for every request, see below; may be given several times",
    )
    parser.add_argument("--reply", default=default.reply, help="auto, echo, or the text of every reply")
    parser.add_argument(
        "--batch-latency", type=float, default=default.batch_latency, help="seconds until a batch has ended"
    )
    parser.add_argument(
        "--batch-latency-sigma",
        type=float,
        default=default.batch_latency_sigma,
        help="sigma of a lognormal latency of batches",
    )
    parser.add_argument(
        "--batch-window",
        type=float,
        default=default.batch_window,
        help="seconds that the completion window of 24 hours lasts; then batches expire",
    )
    parser.add_argument("--batch-requests", type=int, default=default.batch_requests, help="most requests of a batch")
    parser.add_argument("--batch-bytes", type=int, default=default.batch_bytes, help="most bytes of a batch's file")
    parser.add_argument(
        "--batch-tokens",
        type=int,
        default=default.batch_tokens,
        help="most tokens of a model in batches that have not ended, 0 for no limit",
    )
    parser.add_argument("--parent", type=int, help="stop when the process with this id is no longer the parent")
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND ...",
        help="run this command with OPENAI_BASE_URL and OPENAI_API_KEY set for the server, which ends with it",
    )
    options = vars(parser.parse_args(arguments))
    parent, command = options.pop("parent"), options.pop("command")
    if command[:1] == ["--"]:
        del command[0]
    try:
        return MockSettings(**{**options, "faults": tuple(options["faults"])}), parent, command
    except ValueError as error:
        parser.error(str(error))


async def _serve(settings: MockSettings, parent: int | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, stopped.set)
    async with serving(settings) as base_url:
        sys.stdout.write(f"{base_url}\n")
        sys.stdout.flush()
        # A killed process cannot stop its children.
        while not is_orphaned(parent):
            try:
                await asyncio.wait_for(stopped.wait(), None if parent is None else _PARENT_CHECK_SECONDS)
            except TimeoutError:
                continue
            return


def _run(command: Sequence[str], settings: MockSettings) -> int:
    """Run a command beside a server of its own. Returns its exit code, 128 + n if signal n ended it."""
    try:
        with MockOpenAI(**asdict(settings)) as server:
            environment = {**os.environ, "OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "any"}
            process = subprocess.Popen(command, env=environment)

            def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
                process.send_signal(number)

            # A terminal sends Ctrl-C to the command too, which decides when it ends.
            signal.signal(signal.SIGINT, lambda number, frame: None)  # noqa: ARG005
            signal.signal(signal.SIGTERM, pass_on)
            code = process.wait()
    except FileNotFoundError:
        sys.stderr.write(f"there is no command {command[0]!r}; options of the mock server come before the command\n")
        return 127
    except ResourceError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return code if code >= 0 else 128 - code


def main() -> None:
    settings, parent, command = _parse(sys.argv[1:])
    if command:
        sys.exit(_run(command, settings))
    try:
        asyncio.run(_serve(settings, parent))
    except OSError as error:
        sys.exit(f"cannot serve on {settings.host} port {settings.port}: {error.strerror}")


if __name__ == "__main__":
    main()
