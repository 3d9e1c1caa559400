"""The symmetries of a dictionary: what its decoder blocks say of every latent, read in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from groupcc.analysis.symmetry.blocks import block_norms
from groupcc.analysis.symmetry.broken import find_broken
from groupcc.analysis.symmetry.modulated import without_noise
from groupcc.analysis.symmetry.stabilizers import Stabilizer, find_stabilizers
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.groups import PlanarGroup
from groupcc.groups.autocorrelation import autocorrelation

__all__ = ["Symmetries", "read_symmetries"]


@dataclass(frozen=True, eq=False)
class Symmetries:
    """What `read_symmetries` returns. Tensors are on the CPU, but for the decoder.

    - `group`; `W_dec_LGD`: the decoder as it was read, in at least fp32.
    - `block_norms`, `autocorrelation` [L, G]; `stabilizers`, one a latent; `tolerance`: the one used.
    - `block_states` int8 [L, G]: 0 present, 1 weakened, 2 missing (`find_broken`).
    - `dead` bool [L]: a decoder of zeros, or never active. `left_out` bool [L]: dead or spare.
    """

    group: PlanarGroup
    W_dec_LGD: torch.Tensor
    block_norms: torch.Tensor
    autocorrelation: torch.Tensor
    stabilizers: list[Stabilizer]
    tolerance: float
    block_states: torch.Tensor
    dead: torch.Tensor
    left_out: torch.Tensor

    @property
    def live(self) -> torch.Tensor:
        """Not dead, bool [L]."""
        return ~self.dead


def read_symmetries(
    W_dec_LGD: torch.Tensor,
    group: PlanarGroup,
    tolerance: float | Literal["auto"] = "auto",
    *,
    never_active: torch.Tensor | None = None,
    spare: torch.Tensor | None = None,
) -> Symmetries:
    """Reads each latent's stabilizer from its decoder blocks, as `check_decoder` returns them.

    `never_active`, `spare` bool [L]: latents of which the data says so. `tolerance`: a stabilizer's elements have
    C ≥ 1 − tolerance; "auto" is `calibrate_tolerance` of the latents that are neither dead nor spare. Deterministic on
    the CPU.
    """
    norms = block_norms(W_dec_LGD).cpu()
    dead = norms.amax(1) == 0
    if never_active is not None:
        dead = dead | never_active
    left_out = dead if spare is None else dead | spare
    C_LG = autocorrelation(W_dec_LGD, group).cpu()
    given = None if tolerance == "auto" else float(tolerance)
    read_LG = without_noise(C_LG, group)
    used = calibrate_tolerance(read_LG[~left_out], group) if given is None else given
    stabilizers, states = find_broken(W_dec_LGD, group, find_stabilizers(read_LG, group, used, dead), given, left_out)
    return Symmetries(group, W_dec_LGD, norms, C_LG, stabilizers, used, states, dead, left_out)
