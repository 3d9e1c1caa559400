"""Options that a kind of sparsity declares: checked, filled in, saved, hashed, and read from the command line."""

import json
import math

import pytest

from groupcc import CrosscoderConfig
from groupcc.cli.commands import crosscoder_config
from groupcc.cli.parser import build_parser
from groupcc.errors import ArgumentError
from groupcc.models import sparsity as registry
from groupcc.models.options import Option, Options, fill, number, parse, shares
from groupcc.models.sparsity.topk import TopK

DECLARED = (
    Option("width", 0.5, "a positive number", number(0), "How wide it is."),
    Option("cuts", (0.25, 0.5), "rising shares below 1", shares, "Where it is cut."),
)


@pytest.fixture
def wide(monkeypatch):
    """A kind with options, registered in one line as any other."""
    made = type("Wide", (TopK,), {"options": DECLARED})
    monkeypatch.setitem(registry.SPARSITIES, "wide", "Wide")
    of = registry.sparsity_of
    kinds = {"wide": made()}
    monkeypatch.setattr("groupcc.models.forms.sparsity_of", lambda kind: kinds.get(kind) or of(kind))
    monkeypatch.setattr("groupcc.cli.commands.sparsity_of", lambda kind: kinds.get(kind) or of(kind))


def config(**options):
    return CrosscoderConfig(group="D3", d_in=4, n_latents=8, k=2, sparsity="wide", **options)


def test_defaults_are_filled_in_and_files_hold_them(wide):
    made = config(sparsity_options={"width": 2})
    assert dict(made.sparsity_options) == {"cuts": (0.25, 0.5), "width": 2}
    held = json.loads(json.dumps(made.to_dict()))
    assert held["sparsity_options"] == {"cuts": [0.25, 0.5], "width": 2}
    again = CrosscoderConfig.from_dict(held)
    assert again == made
    assert hash(again) == hash(made)
    assert len({made, again, config(), config(sparsity_options={"cuts": [0.5]})}) == 3
    with pytest.raises(TypeError):
        made.sparsity_options["width"] = 3


def test_a_file_without_options_has_the_defaults(wide):
    held = config().to_dict()
    held.pop("sparsity_options")
    assert CrosscoderConfig.from_dict(held) == config()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wide": 1}, r"sparsity_options: expected an option of sparsity='wide': width \(a positive number, 0\.5 if "
                      r"left out\): How wide it is\.; cuts .*; got wide\. Leave"),
        ({"width": 0}, r"sparsity_options\['width'\]: expected a positive number; got 0\. How wide it is\. Left out"),
        ({"width": (1.0,)}, "expected a positive number; got"),
        ({"width": math.inf}, "expected a positive number"),
        ({"width": True}, "expected a positive number"),
        ({"cuts": 0.5}, "expected rising shares below 1; got 0.5"),
        ({"cuts": (0.5, 0.5)}, "expected rising shares"),
        ({"cuts": (0.5, 1.0)}, "expected rising shares"),
        ({"cuts": ("a",)}, "expected rising shares"),
        ([("width", 1)], "sparsity_options: expected a mapping"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(wide, given, message):
    with pytest.raises(ArgumentError, match=message):
        config(sparsity_options=given)


def test_a_kind_without_options_takes_none():
    with pytest.raises(ArgumentError, match="expected none, as sparsity='topk' has no options; got width"):
        CrosscoderConfig(group="D3", d_in=4, n_latents=8, k=2, sparsity_options={"width": 1})


def test_the_command_line_takes_them(wide):
    words = ["train", "--orbits", "a", "--out", "b", "--latents", "64", "--sparsity", "wide"]
    args = build_parser().parse_args([*words, "--sparsity-option", "width=3", "--sparsity-option", "cuts=0.1,0.2,0.3"])
    assert dict(crosscoder_config(args, "D3", 5).sparsity_options) == {"cuts": (0.1, 0.2, 0.3), "width": 3.0}
    assert crosscoder_config(build_parser().parse_args(words), "D3", 5).sparsity_options == fill("wide", DECLARED, {})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("width", r"--sparsity-option: expected an option of sparsity='wide': width \(.*; got width\."),
        ("height=3", "expected an option of .*; got height=3"),
        ("width=much", "--sparsity-option: expected width= and a positive number; got width=much. How wide it is."),
        ("width=1,2", "expected width= and a positive number; got width=1,2"),
        ("cuts=", "expected cuts= and rising shares below 1; got cuts="),
    ],
)
def test_words_that_are_wrong_are_named(word, message):
    with pytest.raises(ArgumentError, match=message):
        parse("wide", DECLARED, [word])


def test_options_are_a_mapping():
    options = Options({"b": 1.0, "a": (0.5,)})
    assert list(options) == ["a", "b"]
    assert repr(options) == "{'a': (0.5,), 'b': 1.0}"
    assert options == {"a": (0.5,), "b": 1.0}
    assert options != Options({"b": 1.0})
