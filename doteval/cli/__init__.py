"""The command line: one file a command, and what they share.

Nothing is imported before it is needed: `doteval --help` must answer at once.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from doteval.core.exit_codes import OUTPUT_CLOSED, OUTPUT_FAILED, UNEXPECTED
from doteval.core.standard_streams import open_closed_streams, outlive_terminals, silence
from doteval.core.stop_signals import StopSignals, exit_code

if TYPE_CHECKING:
    import click


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line with `args` (None: the process's own) and exit with its code."""
    open_closed_streams()
    outlive_terminals()
    with StopSignals():
        code = _run(args)
    failure = _flush_output()
    if failure is not None:
        code = _leave_without_output(failure)
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
        # Inside, because a signal may come while these are imported.
        import click

        from doteval.cli.application import OutputClosedError, application
        from doteval.cli.streams import say_aside
        from doteval.errors import DotEvalError

        try:
            code = application.main(args, prog_name="doteval", standalone_mode=False)
        except OutputClosedError:
            return OUTPUT_CLOSED
        except click.Abort as abort:
            # click raises it at Ctrl-C, and at the end of the input of a prompt.
            return exit_code(abort.__cause__)
        except click.ClickException as error:
            say_aside(_shown(error))
            return error.exit_code
        except DotEvalError as error:
            if _debugging():
                say_aside(traceback.format_exc())
            say_aside(error.message, label="Error:")
            if error.remedy:
                say_aside(error.remedy)
            _say_more(error.page)
            return error.exit_code
    except KeyboardInterrupt as stopped:
        return exit_code(stopped)
    except Exception as error:  # noqa: BLE001 - the last resort; the traceback is one variable away
        return UNEXPECTED if _flush_output() is not None else _explain_unexpected(error)
    return code if isinstance(code, int) else 0


def _shown(error: click.ClickException) -> str:
    written = io.StringIO()
    error.show(written)
    return written.getvalue().rstrip("\n")


def _debugging() -> bool:
    return os.environ.get("DOTEVAL_DEBUG", "") not in ("", "0")


def _explain_unexpected(error: Exception) -> int:
    from doteval.cli.streams import say_aside

    if _debugging():
        say_aside("".join(traceback.format_exception(error)))
        return UNEXPECTED
    message = str(error).strip()
    shown = f"{message[:1000]} ..." if len(message) > 1000 else message
    frames = traceback.extract_tb(error.__traceback__)
    where = f"\n  in {frames[-1].filename}:{frames[-1].lineno}, {frames[-1].name}" if frames else ""
    from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors

    if is_lack_of_descriptors(error):
        say_aside(f"this process has too many files open{where}", label="Error:")
        say_aside(how_to_raise())
        _say_more("troubleshooting#too-many-files-open")
        return UNEXPECTED
    say_aside(f"doteval did not expect this: {type(error).__name__}: {shown}{where}", label="Error:")
    say_aside(
        "Set DOTEVAL_DEBUG=1 and run the command again for the whole traceback.\n"
        "Results that were stored are safe; the same command goes on where it stopped."
    )
    _say_more("troubleshooting#unexpected-error")
    return UNEXPECTED


def _say_more(page: str | None) -> None:
    """Name the section of the documentation about an error, which `doteval docs` shows."""
    from doteval.cli.streams import say_aside

    if page:
        say_aside(f"More: doteval docs {page}")


def _flush_output() -> OSError | None:
    """Flush standard output. Returns the error if it cannot be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _leave_without_output(failure: OSError) -> int:
    from doteval.cli.streams import say_aside

    silence(sys.stdout)
    if isinstance(failure, BrokenPipeError):
        return OUTPUT_CLOSED
    say_aside(f"standard output cannot be written: {failure.strerror}", label="Error:")
    return OUTPUT_FAILED
