"""Options of a kind: what a kind of sparsity declares about its own settings, once, for Python, files and command
line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from groupcc.errors import argument_error, is_real

__all__ = ["Option", "Options", "fill", "number", "parse", "shares"]

Value = float | tuple[float, ...]


@dataclass(frozen=True)
class Option:
    """One setting of a kind.

    `default`: a number, or a tuple of numbers, which is then the type. `expected`: the range in words, such as "a
    positive number". `accepts(value)`: whether a value of that type is in the range. `meaning`: one sentence.
    """

    name: str
    default: Value
    expected: str
    accepts: Callable[[Any], bool]
    meaning: str

    def __str__(self) -> str:
        return f"{self.name} ({self.expected}, {_text(self.default)} if left out): {self.meaning}"


class Options(Mapping[str, Value]):
    """Values by name: a mapping that cannot be changed, so that a configuration that holds it can be hashed."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(sorted(values.items()))

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def number(low: float, high: float = float("inf")) -> Callable[[Any], bool]:
    """Returns whether a value is a finite number above `low` and at most `high`."""
    return lambda value: is_real(value) and low < value <= high and value < float("inf")


def shares(values: Any) -> bool:
    """Whether values are rising numbers between 0 and 1, without either."""
    real = isinstance(values, tuple) and all(is_real(value) for value in values)
    return real and all(low < high for low, high in zip((0.0, *values), (*values, 1.0), strict=True))


def fill(kind: str, declared: Iterable[Option], given: object) -> Options:
    """Returns the values of all options of a kind, defaults where none is given.

    ArgumentError for a name that the kind does not declare, and for a value out of its range.
    """
    by_name = {option.name: option for option in declared}
    if not isinstance(given, Mapping):
        raise argument_error(
            "sparsity_options", expected="a mapping of names to values", got=given, remedy="Leave it out for defaults."
        )
    values: dict[str, Value] = {name: option.default for name, option in by_name.items()}
    for name, value in given.items():
        if name not in by_name:
            raise _unknown("sparsity_options", kind, by_name.values(), name)
        option = by_name[name]
        value = tuple(value) if isinstance(value, list) else value
        if isinstance(value, tuple) != isinstance(option.default, tuple) or not option.accepts(value):
            raise argument_error(
                f"sparsity_options[{name!r}]",
                expected=option.expected,
                got=value,
                remedy=f"{option.meaning} Left out, it is {_text(option.default)}.",
            )
        values[name] = value
    return Options(values)


def parse(kind: str, declared: Iterable[Option], words: Iterable[str]) -> dict[str, Value]:
    """Returns what `NAME=VALUE` words say; the numbers of a tuple are separated by commas. ArgumentError as `fill`."""
    by_name = {option.name: option for option in declared}
    values: dict[str, Value] = {}
    for word in words:
        name, found, text = word.partition("=")
        if not found or name not in by_name:
            raise _unknown("--sparsity-option", kind, by_name.values(), word)
        try:
            numbers = tuple(float(part) for part in text.split(","))
        except ValueError:
            numbers = ()
        of_tuple = isinstance(by_name[name].default, tuple)
        if not numbers or not (of_tuple or len(numbers) == 1):
            expected = f"{name}= and {by_name[name].expected}"
            raise argument_error("--sparsity-option", expected=expected, got=word, remedy=by_name[name].meaning)
        values[name] = numbers if of_tuple else numbers[0]
    return values


def _unknown(argument: str, kind: str, declared: Iterable[Option], got: str) -> Exception:
    shown = "; ".join(map(str, declared))
    expected = f"an option of sparsity={kind!r}: {shown}" if shown else f"none, as sparsity={kind!r} has no options"
    return argument_error(argument, expected=expected, got=got, remedy="Leave it out for defaults.")


def _text(value: Value) -> str:
    return ",".join(f"{part:g}" for part in value) if isinstance(value, tuple) else f"{value:g}"
