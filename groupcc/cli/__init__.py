"""The command line: `groupcc COMMAND`."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence

from groupcc.cli.parser import build_parser

__all__ = ["main"]

RESUMABLE = ("demo", "run", "harvest", "train")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 for a user's error, 130 for an interrupt."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # An old terminal's encoding may lack a letter of a file's name: better a question mark than a crash.
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    args = build_parser().parse_args(argv)
    from groupcc.errors import GroupccError, GroupccWarning

    def show_warning(message: Warning | str, category: type[Warning], *rest: object) -> None:
        if issubclass(category, GroupccWarning):
            print(f"groupcc: warning: {message}", file=sys.stderr)
        else:
            shown(message, category, *rest)  # type: ignore[arg-type]

    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.showwarning = show_warning  # type: ignore[assignment]
        try:
            from groupcc.cli import commands  # with torch, which takes seconds

            commands.COMMANDS[args.command](args)
        except GroupccError as error:
            print(f"groupcc: error: {error}", file=sys.stderr)
            return 2
        except OSError as error:
            # A path that can't be read or written, a full disk: str() names the file, where there is one.
            print(
                f"groupcc: error: {error}. Check the path, its permissions and the room on the disk.", file=sys.stderr
            )
            return 2
        except KeyboardInterrupt:
            on = " The same command goes on where it stopped." if args.command in RESUMABLE else ""
            print(f"groupcc: interrupted.{on}", file=sys.stderr)
            return 130
    return 0
