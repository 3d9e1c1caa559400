"""The pose-tied dictionary: atoms R_h d_l of base latents d_l, read and written without being formed."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from groupcc import ops
from groupcc.groups import Group
from groupcc.groups.translate import translation_table
from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.forms.base import Atoms, Form, penalty_error
from groupcc.models.forms.encodings import Encoding, FormedEncoding, GroupEncoding, MapEncoding, Reading
from groupcc.models.forms.poses import PoseReading
from groupcc.models.latents import Decoder, SparseLatents
from groupcc.ops.group_blocks import single_blocks

__all__ = ["Tied", "translates"]


def translates(W_LGD: Tensor, group: Group) -> Tensor:
    """Returns every R_h of every latent, [L·G, G, D]: that of latent l in pose h is the (l·G + h)-th."""
    return W_LGD[:, translation_table(group, W_LGD.device)].flatten(0, 1)


class Tied(Form):
    """Base latents d_l with |G| poses R_h d_l.

    z[n, l, h] = Σ_g ⟨W_l[gh], a[n, g]⟩ + b_l with encoder "orbit", ⟨W_l[h], a[n, 0]⟩ + b_l with "identity". b_dec [1,
    D] is one for all blocks.
    """

    has_poses = True
    translates_exactly = True

    @classmethod
    def defaults(cls, config: CrosscoderConfig, group: Group) -> dict[str, Any]:
        return {"pose": "max"} if config.pose is None else {}

    @classmethod
    def check(cls, config: CrosscoderConfig, group: Group) -> None:
        if config.residual_penalty is not None:
            raise penalty_error(config)

    def described(self, config: CrosscoderConfig) -> str:
        return f", tied, pose={config.pose}"

    def encoder_blocks(self, config: CrosscoderConfig, group: Group) -> int:
        return group.order

    def bias_blocks(self, group: Group) -> int:
        return 1

    def start_biases_(self, cc: Dictionary, centre_GD: Tensor) -> None:
        super().start_biases_(cc, centre_GD.to(cc.b_dec).mean(0, keepdim=True))

    def encoder_bias(self, cc: Dictionary, centre: Tensor) -> Tensor:
        # An encoder "identity" reads the centre in each pose by another block of W_enc: right on average.
        blocks = cc.W_enc.shape[1]
        read = centre.expand(blocks, -1) / (1 if cc.config.encoder == "orbit" else blocks)
        return super().encoder_bias(cc, read)

    def pre_acts(self, cc: Dictionary, acts_NGD: Tensor) -> Tensor:
        return self.encoding(cc, acts_NGD, gradients_later=False).pre_acts()

    def read(self, cc: Dictionary, acts_NGD: Tensor) -> Reading:
        encoding = self.encoding(cc, acts_NGD, gradients_later=True)
        return PoseReading(cc, self.selection, encoding, partial(self.upright_decoders, cc))

    def encoding(self, cc: Dictionary, acts_NGD: Tensor, *, gradients_later: bool) -> Encoding:
        """Returns the encoding of a batch. `gradients_later`: the caller asks for them by `with_gradients`."""
        if cc.config.encoder == "orbit":
            sparse = gradients_later and self.sparsity.gradient_is_sparse
            return GroupEncoding(cc, acts_NGD, cc.config.k if sparse else None)
        dtype = acts_NGD.dtype
        W_AD, b_L1 = cc.W_enc.to(dtype).flatten(0, 1), cc.b_enc.to(dtype)[:, None]
        z_NA = acts_NGD[:, 0] @ W_AD.t()
        return FormedEncoding(cc, acts_NGD, z_NA.view(-1, len(b_L1), cc.group.order) + b_L1)

    def upright_decoders(self, cc: Dictionary) -> Tensor:
        """Returns the decoders of pose 0, [L, G, D]."""
        return cc.W_dec

    def encode_maps(self, cc: Dictionary, maps: Tensor, points: Tensor, interpolation: str) -> SparseLatents:
        if cc.config.encoder != "orbit":
            return super().encode_maps(cc, maps, points, interpolation)
        of_acts = partial(self.encoding, cc, gradients_later=True)
        encoding = MapEncoding(cc, maps, points, interpolation, of_acts)
        reading = PoseReading(cc, self.selection, encoding, partial(self.upright_decoders, cc))
        return reading.encode().latents

    def decode(self, cc: Dictionary, latents: SparseLatents, decoder: Decoder) -> Tensor:
        # â[n, g] = Σ_k act · W_dec[index, g·pose] + b_dec, as N·G examples of one block.
        acts, indices, poses = latents
        assert poses is not None
        N, (_, G, D) = len(acts), decoder.W_dec.shape
        blocks = single_blocks(acts, indices, poses, decoder.W_dec, cc.group)
        return ops.sparse_decode(*blocks, decoder.b_dec).view(N, G, D)

    def decode_loss(
        self, cc: Dictionary, latents: SparseLatents, decoder: Decoder, target_NGD: Tensor
    ) -> tuple[Tensor, Tensor]:
        acts, indices, poses = latents
        assert poses is not None
        return ops.group_decode_loss(acts, indices, poses, *decoder, target_NGD, cc.group)

    def likeness(self, directions_NGD: Tensor, group: Group) -> Tensor:
        return ops.group_correlate(directions_NGD, directions_NGD, group).amax(2)

    def atoms(self, cc: Dictionary) -> Atoms:
        W_enc_AGD = cc.W_enc.flatten(0, 1)[:, None]  # "identity" reads block 0, and that of R_h W is block h of W
        if cc.config.encoder == "orbit":
            W_enc_AGD = translates(cc.W_enc, cc.group)
        b_enc_A = cc.b_enc[:, None].expand(-1, cc.group.order).flatten()
        return Atoms(W_enc_AGD, b_enc_A, translates(cc.W_dec, cc.group), cc.b_dec)

    def atom_numbers(self, latents: SparseLatents, group: Group) -> Tensor:
        assert latents.poses is not None
        return latents.indices * group.order + latents.poses

    def atoms_of(self, latents_M: Tensor, group: Group) -> Tensor:
        return (latents_M[:, None] * group.order + torch.arange(group.order, device=latents_M.device)).flatten()

    def moved_atoms(self, atoms_M: Tensor, element: int, group: Group) -> Tensor | None:
        moved = torch.from_numpy(group.cayley[element].copy()).to(atoms_M.device)
        return atoms_M.div(group.order, rounding_mode="floor") * group.order + moved[atoms_M % group.order]

    def upright(self, cc: Dictionary) -> tuple[Tensor, Tensor]:
        # Block e of R_h d is block h of d.
        return cc.W_dec.detach().float().flatten(0, 1), cc.b_dec.detach().float()[0]

    def decoder_rows(self, cc: Dictionary, latents_P: Tensor, poses_P: Tensor | None) -> Tensor:
        assert poses_P is not None
        return cc.W_dec[latents_P[:, None], translation_table(cc.group, cc.W_dec.device)[poses_P]]

    def encoder_rows(self, cc: Dictionary, latents_P: Tensor, poses_P: Tensor | None) -> tuple[Tensor, Tensor]:
        b_P = cc.b_enc[latents_P]
        if poses_P is None:
            return cc.W_enc[latents_P], b_P
        if cc.config.encoder == "identity":  # block 0 of R_h W is block h of W
            return cc.W_enc[latents_P, poses_P][:, None], b_P
        return cc.W_enc[latents_P[:, None], translation_table(cc.group, cc.W_enc.device)[poses_P]], b_P

    def residual_share(self, cc: Dictionary) -> Tensor:
        return torch.zeros_like(cc.b_enc)
