"""Latent scaling on the command line, and what is said of all blocks of a latent."""

import re

import pytest
import torch

from groupcc.analysis import VERDICTS, Scaling
from groupcc.cli.commands import analysis_options
from groupcc.cli.parser import build_parser


def test_on_the_command_line():
    parse = build_parser().parse_args
    arguments = ["analyze", "--crosscoder", "a", "--orbits", "b", "--out", "c"]
    assert "scaling" not in analysis_options(parse(arguments))
    assert analysis_options(parse([*arguments, "--scaling"]))["scaling"] is True


@pytest.mark.parametrize(
    ("blocks", "verdict", "words"),
    [
        (["present"], "present", ["its only block"]),
        (["present"] * 4, "present", ["all its 4 blocks"]),
        (
            ["absent", "shrunk", "carried"],
            "shrunk",
            ["0 of its 3 blocks", "1 is weaker", "1 is empty", "1 has"],
        ),
        (["absent", "absent", "carried"], "carried", ["0 of its 3 blocks", "1 is empty", "2 have nothing"]),
        (["absent", "unclear", "present"], "absent", ["1 of its 3 blocks", "1 has nothing", "1 is too noisy"]),
        (["unclear", "present"], "unclear", ["1 of its 2 blocks", "1 is too noisy"]),
    ],
)
def test_verdict_on_all_blocks_and_its_words(blocks, verdict, words):
    codes = torch.tensor([[VERDICTS.index(block) for block in blocks]], dtype=torch.int8)
    nothing = torch.zeros(codes.shape)
    scaling = Scaling(nothing, nothing, nothing, nothing, codes)
    assert scaling.verdict(0) == verdict
    (note,) = scaling.notes(0)
    assert note.topic == "data"
    assert re.split("; |, ", note.text.removeprefix("The data agrees with ").rstrip("."))[0] == words[0]
    counts = [int(text.split()[0]) for text in re.split("; |, ", note.text)[1:]]
    assert counts == [int(text.split()[0]) for text in words[1:]]
    assert all(text in note.text for text in words)
