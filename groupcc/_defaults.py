"""What the library and the command line take if they are not told. One place for both; nothing here imports PyTorch.

`CrosscoderConfig`, `TrainConfig`, `harvest`, `analyze`, `causal_check` and the parser of the command line read these
names. `tests/cli/test_defaults.py` compares every option with its argument.
"""

from __future__ import annotations

GROUP = "D32"
"""32 rotations and 32 reflections: the group of Gorton (2024)."""
FORWARD_BATCH = 16

K = 16
DEAD_AFTER = 100_000

STEPS = 3000
BATCH_SIZE = 512
HELD_OUT = 0.1
CHECKPOINT_EVERY = 250

FAMILY_THRESHOLD = 0.75
"""Least similarity of a family's members to its reference: two copies, each learned at cosine 0.87."""
EVIDENCE_EXAMPLES = 16384
"""Orbits at most that stabilizers are tested on."""
