"""What groupcc raises, and the one way its messages are built."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "ArgumentError",
    "BackendError",
    "DataError",
    "GroupccError",
    "GroupccWarning",
    "QualityWarning",
    "argument_error",
    "check_choice",
    "check_is",
    "check_options",
    "check_whole",
    "is_real",
    "is_whole",
]


class GroupccError(Exception):
    """Base of every error that groupcc raises on purpose."""


class ArgumentError(GroupccError, ValueError):
    """An argument is not what the function takes."""


class DataError(GroupccError):
    """Data on disk or from a model is damaged, missing, or not what it should be."""


class BackendError(GroupccError, RuntimeError):
    """A backend that was asked for by name can't run here."""


class GroupccWarning(UserWarning):
    """Base of every warning that groupcc gives."""


class QualityWarning(GroupccWarning):
    """A dictionary does not describe its layer well enough to be read."""


def argument_error(name: str, *, expected: str, got: object, remedy: str) -> ArgumentError:
    """An `ArgumentError` that names the argument, what was expected, what came, and the remedy."""
    shown = got if isinstance(got, str) else repr(got)
    if len(shown) > 300:
        shown = shown[:297] + "..."
    return ArgumentError(f"{name}: expected {expected}; got {shown}. {remedy}")


def check_choice(name: str, value: object, choices: Iterable[str], remedy: str) -> None:
    """ArgumentError where `value` is not one of two or more words, which it lists."""
    *others, last = words = list(choices)
    if value not in words:
        expected = ", ".join(f'"{word}"' for word in others) + f' or "{last}"'
        raise argument_error(name, expected=expected, got=value, remedy=remedy)


def check_options(function: Callable[..., Any], given: Iterable[str], known: Iterable[str]) -> None:
    """ArgumentError for the first keyword in `given` that a function with `**options` doesn't take.

    `known`: the options behind `**options`. The message gives the nearest name that the function does take.
    """
    import difflib
    import inspect

    known = list(known)
    for name in given:
        if name not in known:
            kinds = inspect.signature(function).parameters.values()
            takes = [p.name for p in kinds if p.kind is not p.VAR_KEYWORD] + known
            (nearest,) = difflib.get_close_matches(name, takes, n=1, cutoff=0.0)
            raise argument_error(
                name,
                expected=f"an option of {function.__name__}",
                got="a name that it doesn't know",
                remedy=f"Nearest: {nearest}. It takes {', '.join(takes)}.",
            )


def is_whole(value: object, minimum: int | None = None) -> bool:
    """Whether `value` is an int (no bool), at least `minimum` where there is one."""
    return isinstance(value, int) and not isinstance(value, bool) and (minimum is None or value >= minimum)


def is_real(value: object) -> bool:
    """Whether `value` is an int or a float (no bool); infinity and NaN are."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_whole(name: str, value: object, minimum: int, remedy: str) -> None:
    """ArgumentError if `value` is not an int of at least `minimum`."""
    if not is_whole(value, minimum):
        raise argument_error(name, expected=f"a whole number >= {minimum}", got=value, remedy=remedy)


def check_is(name: str, value: object, kind: type) -> None:
    """ArgumentError if `value` is not of a class that groupcc exports."""
    if not isinstance(value, kind):
        made = f"groupcc.{kind.__name__}(…) makes one."
        raise argument_error(name, expected=f"a {kind.__name__}", got=type(value).__name__, remedy=made)
