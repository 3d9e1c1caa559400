"""What goes from the encoder to the decoder: SparseLatents, what is known beside them, and what decoding reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Decoder", "Encoded", "SparseLatents"]


class SparseLatents(NamedTuple):
    """Active latents of N examples: `acts` [N, K] ≥ 0 and `indices` int64 [N, K].

    An entry whose act is 0 is padding; its index means nothing. Rows are sorted by falling act. Of a pose-tied
    crosscoder `indices` are base latents and `poses` int64 [N, K] the elements in which they are present; else None.
    """

    acts: Tensor
    indices: Tensor
    poses: Tensor | None = None

    def to_dense(self, n_latents: int) -> Tensor:
        """Latent acts [N, L]; of a base latent active in several poses, their sum."""
        return self.acts.new_zeros(self.acts.shape[0], n_latents).scatter_add(1, self.indices, self.acts)

    @property
    def l0(self) -> Tensor:
        """Number of active latents of each example, int64 [N]."""
        return (self.acts > 0).sum(1)

    @classmethod
    def from_dense(cls, latent_acts: Tensor) -> SparseLatents:
        """From latent acts [N, L]; K is the largest number active in one example (at least 1)."""
        most = max(int((latent_acts > 0).sum(1).max()) if latent_acts.shape[0] else 1, 1)
        values, indices = torch.topk(latent_acts, min(most, latent_acts.shape[1]), dim=1)
        return cls(values, indices)


class Encoded(NamedTuple):
    """What the choice of latents in a batch yields.

    - `latents`: the chosen ones.
    - `dense` [N, L]: all latent acts, where the choice yields them first; decoding is then one dense product.
    - `threshold` []: the lowest pre-activation that the batch chose, where the batch decides.
    - `pre` [N, K]: the pre-activation of each entry of `latents`, where the kind's losses read it. An entry of act 0 is
      then no padding: its index means something.
    """

    latents: SparseLatents
    dense: Tensor | None = None
    threshold: Tensor | None = None
    pre: Tensor | None = None


class Decoder(NamedTuple):
    """What decoding reads: `W_dec` [R, G, D], a row for each latent or atom, and `b_dec` [G or 1, D], None for 0."""

    W_dec: Tensor
    b_dec: Tensor | None
