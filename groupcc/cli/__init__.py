"""The command line: `groupcc COMMAND`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from groupcc.cli.parser import build_parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 2 for a user's error, 130 for an interrupt."""
    args = build_parser().parse_args(argv)
    from groupcc.cli import commands
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
            commands.COMMANDS[args.command](args)
        except GroupccError as error:
            print(f"groupcc: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("groupcc: interrupted. The same command goes on where it stopped.", file=sys.stderr)
            return 130
    return 0
