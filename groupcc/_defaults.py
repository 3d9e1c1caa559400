"""What the library and the command line take if they are not told. One place for both; nothing here imports PyTorch.

`CrosscoderConfig`, `TrainConfig`, `harvest`, `analyze`, `causal_check` and the parser of the command line read these
names. `tests/cli/test_defaults.py` compares every option with its argument.
"""

from __future__ import annotations

from typing import Literal

GROUP = "D32"
"""32 rotations and 32 reflections: the group of Gorton (2024)."""
FORWARD_BATCH = 16

K = 16
ENCODER: Literal["identity", "orbit"] = "orbit"
DEAD_AFTER = 100_000
"""Examples at most without firing after which a latent is dead."""
DEAD_SHARE = 75
"""If training is shorter, it is so many times longer than the wait: a latent is then given up, and can start anew."""
DEAD_BATCHES = 10
"""Batches at least without firing after which a latent is dead."""

STEPS = 3000
BATCH_SIZE = 512
HELD_OUT = 0.1
CHECKPOINT_EVERY = 250
AUGMENT = True
RESAMPLINGS = 20
"""Times that dead latents start anew, less those while the learning rate falls; none in runs of fewer steps than
`RESAMPLING_STEPS`."""
RESAMPLING_STEPS = 200

FAMILY_THRESHOLD = 0.75
"""Least similarity of a family's members to its reference: two copies, each learned at cosine 0.87."""
EVIDENCE_EXAMPLES = 16384
"""Orbits at most that stabilizers are tested on."""
