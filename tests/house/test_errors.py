"""The messages that every refused argument shares."""

import pytest

from groupcc.errors import ArgumentError, check_choice


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"], {"a"}, "ab"])
def test_what_is_not_a_choice_is_refused_with_the_choices(value):
    with pytest.raises(ArgumentError, match=r'^what: expected "a", "b" or "d e"; got .* Take "a".$'):
        check_choice("what", value, ("a", "b", "d e"), 'Take "a".')


def test_a_choice_passes_whatever_holds_the_choices():
    for choices in (["a", "b"], {"a": 1, "b": 2}, iter(("a", "b"))):
        check_choice("what", "b", choices, "")
    with pytest.raises(ArgumentError, match='expected "a" or "b"; got c'):
        check_choice("what", "c", iter(("a", "b")), "")
