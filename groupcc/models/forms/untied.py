"""The untied dictionary: every latent has its own encoder and decoder, and no pose."""

from __future__ import annotations

import torch
from torch import Tensor

from groupcc import ops
from groupcc.models.dictionary import Dictionary
from groupcc.models.forms.base import Form
from groupcc.models.forms.encodings import Reading, refuse_maps_not_finite
from groupcc.models.latents import Encoded, SparseLatents

__all__ = ["Untied"]


class Untied(Form):
    """pre_l = Σ_g ⟨a_g, W_enc[l, g]⟩ + b_enc[l], with an encoder "identity" of g = 0 alone."""

    def pre_acts(self, cc: Dictionary, acts_NGD: Tensor) -> Tensor:
        x, W_enc, b_enc = _encoder(cc, acts_NGD)
        return torch.addmm(b_enc, x, W_enc)

    def read(self, cc: Dictionary, acts_NGD: Tensor) -> Reading:
        return _Reading(self, cc, acts_NGD)

    def encode_maps(self, cc: Dictionary, maps: Tensor, points: Tensor, interpolation: str) -> SparseLatents:
        W_enc_GDL = cc.W_enc.to(maps.dtype).permute(1, 2, 0)
        pre = ops.orbit_encode(maps, points, W_enc_GDL, cc.b_enc.to(maps.dtype), interpolation)
        refuse_maps_not_finite(pre, points.shape[1])
        return self.selection.select_columns(cc, pre).latents


def _encoder(cc: Dictionary, acts_NGD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what the encoder reads as x [N, M], W_enc [M, L] and b_enc [L], in one dtype."""
    dtype = acts_NGD.dtype
    x = acts_NGD[:, : cc.W_enc.shape[1]].flatten(1)
    return x, cc.W_enc.flatten(1).to(dtype).t(), cc.b_enc.to(dtype)


class _Reading(Reading):
    def __init__(self, form: Untied, cc: Dictionary, acts_NGD: Tensor) -> None:
        self.form, self.cc, self.acts_NGD = form, cc, acts_NGD
        self.encoder = _encoder(cc, acts_NGD)

    def encode(self) -> Encoded:
        self.cc.check_finite(self.acts_NGD)
        return self.form.selection.encode_columns(self.cc, *self.encoder)

    def strongest(self, latents_M: Tensor, k: int) -> SparseLatents:
        x, W_enc, b_enc = self.encoder
        acts, chosen = ops.encode_topk(x, W_enc.t()[latents_M].t(), b_enc[latents_M], k)
        return SparseLatents(acts, latents_M[chosen])
