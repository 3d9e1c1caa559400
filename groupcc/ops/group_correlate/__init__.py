"""group_correlate: how well each translate of each base latent matches an orbit."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.ops.backend import current_backend
from groupcc.ops.group_correlate.fourier import group_correlate_fourier, saved_by_fourier
from groupcc.ops.group_correlate.reference import group_correlate_reference

__all__ = ["group_correlate"]

# The transforms cost about as much as a group of this many elements saves.
LEAST_SAVING = 3.0


def group_correlate(acts: torch.Tensor, W: torch.Tensor, group: Group) -> torch.Tensor:
    """z[n, l, h] = Σ_g ⟨W[l, gh], acts[n, g]⟩: [N, G, D], [L, G, D] → [N, L, G].

    The inner product of each orbit with every translate R_h W_l, (R_h w)_g = w_{gh}: a correlation on the group.
    Backend "reference" takes the sum as it stands, |G|²·N·L·D multiplications; every other one the Fourier transform
    on the group (Σ_ρ d³·N·L·D and two small transforms, 33 times fewer for D32), in PyTorch's products on the tensors'
    device, unless the group is too small to gain. One floating dtype for both; differences between the two ways are
    roundings, about 1e-6 of the largest z in fp32. Gradients to `acts` and `W`. Deterministic on the CPU.

    ArgumentError for shapes and dtypes.
    """
    if acts.dim() != 3 or acts.shape[1] != group.order or not acts.is_floating_point():
        raise argument_error(
            "acts",
            expected=f"a floating-point tensor [N, G, D] with G = {group.order}, the order of {group}",
            got=f"{acts.dtype} of shape {tuple(acts.shape)}",
            remedy="Pass orbits of this group.",
        )
    if W.dim() != 3 or W.shape[1:] != acts.shape[1:] or W.dtype != acts.dtype:
        raise argument_error(
            "W",
            expected=f"{acts.dtype} of shape [L, G, D] = [L, {acts.shape[1]}, {acts.shape[2]}]",
            got=f"{W.dtype} of shape {tuple(W.shape)}",
            remedy="One block for each element of the group, in the dtype of acts.",
        )
    if current_backend() == "reference" or saved_by_fourier(group) < LEAST_SAVING:
        table = torch.from_numpy(group.right_translation.copy()).to(acts.device)
        return group_correlate_reference(acts, W, table)
    return group_correlate_fourier(acts, W, group)
