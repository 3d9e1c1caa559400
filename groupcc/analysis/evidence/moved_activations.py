"""How a latent's activation changes if the group moves its input: the stabilizer that its activation has."""

from __future__ import annotations

from typing import Literal

import torch

from groupcc.data import Orbits
from groupcc.models import GroupCrosscoder, SparseLatents
from groupcc.models.metrics import batch_starts
from groupcc.models.moved_pre_acts import moved_pre_acts

__all__ = ["FEWEST_FIRINGS", "MOST_FIRINGS", "MovedActivations", "measure_moved"]

FEWEST_FIRINGS = 5
"""If a latent has fewer firings, nothing is said of its activation."""

MOST_FIRINGS = 32
"""Firings of each latent that are looked at: its first ones."""


@torch.no_grad()
def measure_moved(
    crosscoder: GroupCrosscoder,
    source: Orbits,
    examples: torch.Tensor,
    asked_L: torch.Tensor,
    *,
    batch_size: int,
    progress: bool = False,
) -> MovedActivations:
    """Reads these examples, in their order, until all latents asked (bool [L]) have `MOST_FIRINGS`.

    Deterministic on the CPU. The crosscoder's mode is restored.
    """
    moved = MovedActivations(crosscoder)
    asked = asked_L.to(moved.count.device)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in batch_starts(len(examples), batch_size, "activations, moved", progress):
            # Ascending reads are kinder to a store on disk.
            acts = source.take(examples[start : start + batch_size].sort().values).to(moved.z_LNG.device)
            moved.add(acts, crosscoder.encode(acts))
            if bool((moved.count[asked] >= MOST_FIRINGS).all()):
                break
    finally:
        crosscoder.train(was_training)
    return moved


class MovedActivations:
    """f_l(R_h a) beside f_l(a), over examples a in which latent l is active.

    The orbit of T_h x at h·p is R_h a (the translation law), so a latent with stabilizer H has f_l(R_h a) = f_l(a) for
    h in H. With z_n(h) = max(pre_l(R_h a_n), 0), before the choice of the k largest,

        R(h) = Σ_n z_n(e) z_n(h) / ½Σ_n (z_n(e)² + z_n(h)²).

    R(h) is 1 exactly if the activation stays what it is, and 0 if it vanishes. R(h) and R(h⁻¹) are pooled. Example: one
    firing with z(e) = 4, z(h) = 2 has R(h) = 8/10. It depends on more than the encoder: what other latents add to the
    activations is in it.

    If latents have poses, z(e) belongs to the atom R_p d_l that was active, and z(h) to R_{ph} d_l. If these poses have
    residuals, it is what the poses share that is moved.
    """

    def __init__(self, crosscoder: GroupCrosscoder) -> None:
        self.crosscoder, self.group = crosscoder, crosscoder.group
        L, G, device = crosscoder.config.n_latents, self.group.order, crosscoder.W_enc.device
        self.z_LNG = torch.zeros(L, MOST_FIRINGS, G, device=device)
        self.count = torch.zeros(L, dtype=torch.int64, device=device)

    def add(self, acts_NGD: torch.Tensor, latents: SparseLatents) -> None:
        """One batch, with the latents active in it."""
        rows, columns = (latents.acts > 0).nonzero().unbind(1)
        which = latents.indices[rows, columns]
        order = which.argsort(stable=True)
        sizes = torch.bincount(which, minlength=len(self.count))
        slot = torch.empty_like(order)
        slot[order] = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[which[order]]
        slot += self.count[which]
        kept = slot < MOST_FIRINGS
        rows, columns, which, slot = rows[kept], columns[kept], which[kept], slot[kept]
        self.count += torch.bincount(which, minlength=len(self.count))
        poses = None if latents.poses is None else latents.poses[rows, columns]
        moves: Literal["input", "atom"] = "input" if poses is None else "atom"
        pre = moved_pre_acts(self.crosscoder, acts_NGD, which, poses, rows_P=rows, moves=moves)
        self.z_LNG[which, slot] = pre.clamp_min(0.0).float()

    def autocorrelation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns R [L, G] on the CPU, and which latents have `FEWEST_FIRINGS`, bool [L]. R of the others is 0."""
        inverse = torch.tensor(self.group.inverse, device=self.z_LNG.device)
        z_LNG = self.z_LNG.double()
        products = (z_LNG[:, :, :1] * z_LNG).sum(1)
        squares = z_LNG.square().sum(1)
        squares = 0.5 * (squares[:, :1] + squares)
        known = (self.count >= FEWEST_FIRINGS) & (squares[:, 0] > 0)
        R_LG = (products + products[:, inverse]) / torch.where(known[:, None], squares + squares[:, inverse], 1.0)
        return torch.where(known[:, None], R_LG, 0.0).float().cpu(), known.cpu()
