"""Latent scaling on the command line, and what is said of all blocks of a latent."""

import pytest
import torch

from groupcc.analysis import VERDICTS, Scaling
from groupcc.cli.commands import analysis_options
from groupcc.cli.parser import build_parser
from groupcc.report.words import scaling_words


def test_on_the_command_line():
    parse = build_parser().parse_args
    arguments = ["analyze", "--crosscoder", "a", "--orbits", "b", "--out", "c"]
    assert "scaling" not in analysis_options(parse(arguments))
    assert analysis_options(parse([*arguments, "--scaling"]))["scaling"] is True


@pytest.mark.parametrize(
    ("blocks", "verdict", "words"),
    [
        (["present"], "present", "The data agrees with its only block."),
        (["present"] * 4, "present", "The data agrees with all its 4 blocks."),
        (
            ["absent", "shrunk", "carried"],
            "shrunk",
            "agrees with 0 of its 3 blocks; 1 is weaker than in the data, 1 is",
        ),
        (["absent", "absent", "carried"], "carried", "1 is empty as other latents write what is there, 2 have nothing"),
        (["absent", "unclear", "present"], "absent", "1 of its 3 blocks; 1 has nothing in the data, 1 is too noisy"),
        (["unclear", "present"], "unclear", "1 of its 2 blocks; 1 is too noisy to judge."),
    ],
)
def test_verdict_on_all_blocks_and_its_words(blocks, verdict, words):
    codes = torch.tensor([[VERDICTS.index(block) for block in blocks]], dtype=torch.int8)
    nothing = torch.zeros(codes.shape)
    assert Scaling(nothing, nothing, nothing, nothing, codes).verdict(0) == verdict
    assert words in scaling_words(blocks)
