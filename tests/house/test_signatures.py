"""Public functions take few parameters, and say so if they are given one that they don't take."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch

import groupcc
from groupcc.errors import ArgumentError, check_options

ROOT = Path(groupcc.__file__).parent
MOST = 14
PACKAGES = ["groupcc", *(f"groupcc.{path.parent.name}" for path in sorted(ROOT.glob("*/__init__.py")))]


def functions(package):
    """(dotted name, function) of all that a package names in `__all__`: functions, and public methods of its classes.

    A class's constructor counts unless Python made it: a dataclass's fields are no long signature.
    """
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isclass(value):
            own = value.__dict__.get("__init__")
            made = hasattr(value, "__dataclass_fields__") or getattr(value, "_is_protocol", False)
            if own is not None and not made:
                yield f"{package}.{name}", own
            for attribute, member in vars(value).items():
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and not attribute.startswith("_"):
                    yield f"{package}.{name}.{attribute}", function
        elif callable(value) and not inspect.ismodule(value):
            yield f"{package}.{name}", value


def test_the_walk_sees_what_it_should():
    seen = {name for package in PACKAGES for name, _ in functions(package)}
    assert {"groupcc.harvest", "groupcc.views.LayerView.open", "groupcc.ops.orbit_gather", "groupcc.analyze"} <= seen
    assert len(seen) > 150


@pytest.mark.parametrize("package", PACKAGES)
def test_few_parameters(package):
    counts = {name: len(inspect.signature(function).parameters) for name, function in functions(package)}
    assert not {name: count for name, count in counts.items() if count > MOST}


@pytest.mark.parametrize("package", ["causal", "groups", "harvesting", "views", "visualization"])
def test_a_group_of_options_is_typed(package):
    for name, function in functions(f"groupcc.{package}"):
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                assert str(parameter.annotation).startswith("Unpack["), name


def harvest(**options):
    groupcc.harvest(torch.nn.Identity(), "x", torch.rand(1, 3, 9, 9), **options)


def causal_check(**options):
    groupcc.causal_check(torch.nn.Identity(), "x", None, [], None, **options)


def open_view(**options):
    groupcc.LayerView.open(torch.nn.Identity(), "x", **options)


@pytest.mark.parametrize(
    ("call", "unknown", "nearest"),
    [
        (harvest, "marginn", "margin"),
        (harvest, "position", "positions"),
        (causal_check, "family", "families"),
        (open_view, "weight", "weights"),
    ],
)
def test_an_unknown_keyword_is_named_with_the_nearest(call, unknown, nearest):
    with pytest.raises(
        ArgumentError, match=rf"^{unknown}: expected an option of .*Nearest: {nearest}\. It takes .*margin"
    ):
        call(**{unknown: 1})


def test_options_that_are_known_pass():
    check_options(groupcc.harvest, ["margin"], ["margin"])
    with pytest.raises(ArgumentError, match="Nearest: out"):
        check_options(groupcc.harvest, ["outt"], ["margin"])
