"""matryoshka: batchtopk of which every prefix of the dictionary has to reconstruct alone (Bussmann et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor

from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import SparseLatents
from groupcc.models.options import Option, shares
from groupcc.models.sparsity.base import ForwardPass
from groupcc.models.sparsity.batchtopk import BatchTopK

__all__ = ["Matryoshka"]


class Matryoshka(BatchTopK):
    """Latents chosen from the whole dictionary as by batchtopk, and an error for each prefix (arXiv:2503.17547).

    Prefix j is the first share_j·L latents, rounded, at least 1. Latents with poses are in it in all their poses. The
    last prefix is the whole dictionary. â_j = Σ_{l in prefix j} f_l W_dec[l] + b_dec has the error MSE_j =
    mean (â_j − a)². General latents then lie in front and special ones behind, and a special latent takes less from
    the general one that it refines.

    The total loss is the mean of MSE_j over the prefixes. The paper has their sum; the mean is as large as the loss of
    other kinds, so that gradient clipping and `aux_coefficient` mean the same here. The auxiliary loss is batchtopk's.
    `losses["nested"]` is mean MSE_j − MSE of the whole: what is left to gain by reordering. Example: errors 5, 1 and 1
    have the mean 7/3; reconstruction is 1 and nested 4/3.

    Prefixes are fixed, as in the paper. Prefixes of equal size count once, so small dictionaries have fewer.
    """

    options = (
        Option(
            "prefixes",
            (1 / 16, 1 / 8, 1 / 4, 1 / 2),
            "rising shares above 0 and below 1",
            shares,
            "Shares of the dictionary that reconstruct alone, beside the whole.",
        ),
    )

    def losses(self, seen: ForwardPass, cc: Dictionary) -> dict[str, tuple[Tensor, float]]:
        sizes = _sizes(cc)
        if not sizes:
            return {}
        errors = [seen.decode_error(_first(seen.encoded.latents, size)) / seen.acts.numel() for size in sizes]
        mean = torch.stack([*errors, seen.reconstruction]).mean()
        return {"nested": (mean - seen.reconstruction, 1.0)}


def _sizes(cc: Dictionary) -> list[int]:
    """Returns how many latents each prefix has, rising, without the whole dictionary."""
    prefixes = cc.config.sparsity_options["prefixes"]
    assert isinstance(prefixes, tuple)
    together, L = cc.config.form.together(cc.group), cc.config.n_latents
    return sorted({max(round(share * (L // together)), 1) * together for share in prefixes} - {L})


def _first(latents: SparseLatents, size: int) -> SparseLatents:
    """Returns the active latents among the first `size`."""
    acts = torch.where(latents.indices < size, latents.acts, 0)
    most = max(int((acts > 0).sum(1).max()) if len(acts) else 1, 1)
    values, columns = acts.topk(most, dim=1)
    poses = None if latents.poses is None else latents.poses.gather(1, columns)
    return SparseLatents(values, latents.indices.gather(1, columns), poses)
