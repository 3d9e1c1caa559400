"""A folder with a net to import and six photographs, and a whole command."""

import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

NET = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
            with torch.no_grad():
                self.first.weight.copy_(torch.randn(6, 3, 3, 3, generator=generator))
                self.first.bias.zero_()

        def forward(self, x):
            return torch.relu(self.first(x)).mean((2, 3))
"""


def furnish(folder):
    """A net to import and six photographs."""
    (folder / "tiny_cli_net.py").write_text(textwrap.dedent(NET))
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize((60, 60), Image.Resampling.BICUBIC).save(folder / "images" / f"<b>{i}.png")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    yield tmp_path
    sys.modules.pop("tiny_cli_net", None)


RUN = [
    "run", "--model", "tiny_cli_net:Net", "--layer", "first", "--group", "D4", "--images", "images", "--out", "out",
    "--input-size", "33", "--positions", "random:20", "--latents", "16", "--k", "2", "--steps", "30", "--batch-size",
    "16", "--checkpoint-every", "10", "--encoder", "orbit", "--held-out", "0.3", "--baseline", "--augment",
    "--init-decoder", "examples", "--dead-after", "200",
    "--title", "<script>alert(1)</script>",
]  # fmt: skip
