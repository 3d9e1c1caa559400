"""Pre-activations of chosen examples and latents as the group moves one against the other."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from groupcc.models.crosscoder import GroupCrosscoder

__all__ = ["moved_pre_acts"]

AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Numbers of a temporary: on a CPU what its caches hold, as fresh memory costs more than the products."""


@torch.no_grad()
def moved_pre_acts(
    crosscoder: GroupCrosscoder,
    acts_NGD: Tensor,
    latents_P: Tensor,
    poses_P: Tensor | None = None,
    *,
    rows_P: Tensor | None = None,
    moves: Literal["input", "atom"] = "input",
    elements: Tensor | None = None,
) -> Tensor:
    """[P, elements] of P pairs of an orbit a and a latent l, of a tied crosscoder an atom (l, p):

        moves="input":  pre(h) = Σ_g ⟨W_lp[g], a_{gh}⟩ + b_lp,  what it makes of R_h a, the orbit of the image moved;
        moves="atom":   pre(h) = Σ_g ⟨W_l[gph], a_g⟩ + b_l,     what the atom in pose ph makes of a.

    W_lp = R_p W_l; with tied="residual" W_lp and b_lp have that pose's own remainder in them, and "atom" leaves all
    remainders out: what the poses share. With encoder "identity" the sums have g = 0 alone. With "orbit" and no
    remainders the second is the first at p h⁻¹ p⁻¹ (the translation law); with "identity" it is another.

    `rows_P`: which of the acts is a pair's orbit; None: the first the first's, and so on. `poses_P`: of a tied
    crosscoder, which "atom" is for. `elements`: which h; None: all, in order. Indices are int64, all tensors on the
    crosscoder's device. In the acts' dtype, nothing selected or cut at 0. Deterministic on the CPU.
    """
    cayley = torch.tensor(crosscoder.group.cayley, device=acts_NGD.device)
    elements = torch.arange(len(cayley), device=cayley.device) if elements is None else elements
    _, G, D = acts_NGD.shape
    step = max(1, AT_ONCE["cuda" if acts_NGD.is_cuda else "cpu"] // (G * max(G, D)))
    pre = []
    for start in range(0, max(1, len(latents_P)), step):
        some = slice(start, start + step)
        acts = acts_NGD[some] if rows_P is None else acts_NGD[rows_P[some]]
        poses = None if poses_P is None else poses_P[some]
        pre.append(_pre_acts(crosscoder, acts, latents_P[some], poses, moves, elements, cayley))
    return torch.cat(pre)


def _pre_acts(
    crosscoder: GroupCrosscoder,
    acts_PGD: Tensor,
    latents_P: Tensor,
    poses_P: Tensor | None,
    moves: str,
    elements: Tensor,
    cayley: Tensor,
) -> Tensor:
    reads = 1 if crosscoder.config.encoder == "identity" else len(cayley)
    W, b_P = crosscoder.form.encoder_rows(crosscoder, latents_P, poses_P if moves == "input" else None)
    W, b_P = W.to(acts_PGD.dtype), b_P.to(acts_PGD.dtype)
    if moves == "input":
        products, column = W @ acts_PGD.mT, cayley[:reads, elements]  # W[g] meets a_{gh}
    else:
        centre = crosscoder.form.encoder_centre(crosscoder)
        read_PGD = acts_PGD[:, :reads] if centre is None else acts_PGD[:, :reads] - centre.to(acts_PGD.dtype)
        products, column = read_PGD @ W.mT, cayley[:reads]  # a_g meets W[gk], k = ph
    pre = products.gather(2, column.expand(len(products), -1, -1)).sum(1)
    if moves == "atom":
        assert poses_P is not None
        pre = pre.gather(1, cayley[poses_P][:, elements])
    return pre + b_P[:, None]
