"""The command line: one file a command, and what they share.

Nothing is imported before it is needed: `doteval --help` must answer at once.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from doteval.core.exit_codes import INTERRUPTED, OUTPUT_CLOSED, UNEXPECTED


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line with `args` (None: the process's own) and exit with its code."""
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        code = _leave_closed_output()
    # What is left goes with the process: to take it apart object by object would cost another tenth of a second.
    gc.freeze()
    sys.exit(code)


def _run(args: Sequence[str] | None) -> int:
    # Imports make two hundred thousand objects, nearly all to stay: looking for garbage among them as often as Python
    # does takes a fifth of a command's start.
    gc.set_threshold(250_000, 20, 20)
    # Names and model responses may hold what the terminal's encoding does not.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        # Inside, because Ctrl-C may come while these are imported.
        import click

        from doteval.cli.application import OutputClosedError, application
        from doteval.errors import DotEvalError

        try:
            code = application.main(args, prog_name="doteval", standalone_mode=False)
        except OutputClosedError:
            return _leave_closed_output()
        except click.Abort:
            return INTERRUPTED
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except DotEvalError as error:
            if _debugging():
                traceback.print_exc()
            click.echo(f"{click.style('Error:', fg='red', bold=True)} {error.message}", err=True)
            if error.remedy:
                click.echo(error.remedy, err=True)
            return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort; the traceback is one variable away
        return _explain_unexpected(error)
    return code if isinstance(code, int) else 0


def _debugging() -> bool:
    return os.environ.get("DOTEVAL_DEBUG", "") not in ("", "0")


def _explain_unexpected(error: Exception) -> int:
    if _debugging():
        traceback.print_exception(error)
        return UNEXPECTED
    message = str(error).strip()
    shown = f"{message[:1000]} ..." if len(message) > 1000 else message
    frames = traceback.extract_tb(error.__traceback__)
    where = f"\n  in {frames[-1].filename}:{frames[-1].lineno}, {frames[-1].name}" if frames else ""
    sys.stderr.write(
        f"Error: doteval did not expect this: {type(error).__name__}: {shown}{where}\n"
        "Set DOTEVAL_DEBUG=1 and run the command again for the whole traceback.\n"
        "Results that were stored are safe; the same command goes on where it stopped.\n"
    )
    return UNEXPECTED


def _leave_closed_output() -> int:
    # Python flushes stdout once more when it exits, and would complain.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    return OUTPUT_CLOSED
