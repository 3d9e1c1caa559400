"""Library and command line take the same if they are told nothing."""

import argparse
import dataclasses
import inspect
from collections.abc import Mapping

import pytest

import groupcc
from groupcc import _defaults
from groupcc.cli.parser import build_parser
from groupcc.harvesting.harvest import HARVEST_DEFAULTS
from groupcc.views.layer_view import DEFAULT_GROUP

# Options whose argument has another name.
ARGUMENTS = {"latents": "n_latents", "init_decoder": "init_W_dec", "families": "n_families"}
# Options that stand for something else than the library's argument of that name, with what the library takes.
OTHERWISE = {
    ("harvest", "group"): None,  # of a `LayerView` that is given, the group is the view's
    ("harvest", "orbit"): None,  # likewise
    ("analyze", "batch_size"): 1024,  # orbits that are read at once; the option is the size of a training step
    ("analyze", "held_out"): None,  # the library's are image numbers; the option is the share that training kept
}
PARTS = {
    "demo": (),
    "harvest": ("harvest",),
    "train": ("crosscoder", "training"),
    "analyze": ("analyze",),
    "run": ("harvest", "crosscoder", "training", "analyze"),
    "causal": ("causal",),
}


def of_signature(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def of_fields(config):
    return {
        field.name: field.default for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING
    }


LIBRARY = {
    "harvest": of_signature(groupcc.harvest) | HARVEST_DEFAULTS,
    "crosscoder": of_fields(groupcc.CrosscoderConfig),
    "training": of_fields(groupcc.TrainConfig),
    "analyze": of_signature(groupcc.analyze),
    "causal": of_signature(groupcc.causal_check),
}


def nothing(value):
    """Whether the value is one of those by which the parser and the library say that nothing was asked."""
    return value is None or value is False or (isinstance(value, (list, tuple, Mapping)) and not value)


def options(command):
    (subparsers,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {
        ARGUMENTS.get(action.dest, action.dest): action.default
        for action in subparsers.choices[command]._actions
        if not action.required and action.default is not argparse.SUPPRESS
    }


CASES = [
    (command, part, name)
    for command, parts in PARTS.items()
    for part in parts
    for name in options(command)
    if name in LIBRARY[part] and (part, name) not in OTHERWISE
]


@pytest.mark.parametrize(("command", "part", "name"), CASES)
def test_an_option_that_is_left_out_is_the_librarys_default(command, part, name):
    option, argument = options(command)[name], LIBRARY[part][name]
    assert option == argument or (nothing(option) and nothing(argument)), (
        f"groupcc {command}: {option!r}; the library: {argument!r}"
    )


def test_every_default_is_compared():
    compared = {(part, name) for _, part, name in CASES}
    for part, name in (
        ("crosscoder", "k"),
        ("crosscoder", "dead_after"),
        ("training", "steps"),
        ("training", "batch_size"),
        ("training", "held_out"),
        ("training", "checkpoint_every"),
        ("harvest", "forward_batch"),
        ("analyze", "family_threshold"),
        ("analyze", "evidence_examples"),
    ):
        assert (part, name) in compared
    for (part, name), argument in OTHERWISE.items():
        assert LIBRARY[part][name] == argument


def test_the_group_of_the_paper_is_taken_where_none_is_given():
    assert options("harvest")["group"] == options("run")["group"] == DEFAULT_GROUP == _defaults.GROUP
