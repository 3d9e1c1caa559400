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
from groupcc.models.forms.base import Atoms, Form, penalty_error, read_of
from groupcc.models.forms.encodings import Encoding, FormedEncoding, GroupEncoding, MapEncoding, Reading
from groupcc.models.forms.poses import PoseReading
from groupcc.models.latents import Decoder, SparseLatents
from groupcc.ops import single_blocks

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

    def add_parameters(self, cc: Dictionary, W_dec_LGD: Tensor) -> None:
        super().add_parameters(cc, W_dec_LGD)
        self.add_centre(cc)

    def add_centre(self, cc: Dictionary) -> None:
        # An encoder "identity" reads the centre in each pose by another block of W_enc, and b_enc has one number.
        if cc.config.encoder == "identity":
            cc.register_buffer("centre", torch.zeros(cc.config.d_in))

    def biases(self, cc: Dictionary) -> list[Tensor]:
        centre = self.encoder_centre(cc)
        return super().biases(cc) + ([] if centre is None else [centre])

    def centre(self, cc: Dictionary, centre_GD: Tensor) -> Tensor:
        return centre_GD.mean(0, keepdim=True).expand(len(centre_GD), -1)

    def fold_centre_(self, cc: Dictionary, centre_GD: Tensor) -> None:
        cc.b_dec.copy_(cc.b_dec.double() + centre_GD[:1])
        held = self.encoder_centre(cc)
        if held is None:
            cc.b_enc.copy_(cc.b_enc.double() - read_of(centre_GD, cc.W_enc))
        else:
            held.copy_(held.double() + centre_GD[0])

    def encoder_centre(self, cc: Dictionary) -> Tensor | None:
        return cc.centre if cc.config.encoder == "identity" else None

    def reset_(self, cc: Dictionary, latents_M: Tensor) -> None:
        super().reset_(cc, latents_M)
        if cc.config.encoder == "identity":  # each pose reads one block: right on average over the poses
            cc.b_enc[latents_M] /= cc.group.order

    def pre_acts(self, cc: Dictionary, acts_NGD: Tensor) -> Tensor:
        return self.encoding(cc, acts_NGD, gradients_later=False).pre_acts()

    def read(self, cc: Dictionary, acts_NGD: Tensor) -> Reading:
        encoding = self.encoding(cc, acts_NGD, gradients_later=True)
        return PoseReading(cc, self.selection, encoding, partial(self.upright_decoders, cc))

    def encoding(self, cc: Dictionary, acts_NGD: Tensor, *, gradients_later: bool) -> Encoding:
        """Returns the encoding of a batch. `gradients_later`: the caller asks for them by `with_gradients`."""
        if cc.config.encoder == "orbit":
            return GroupEncoding(cc, acts_NGD, self.chosen(cc) if gradients_later else None)
        dtype = acts_NGD.dtype
        W_AD, b_L1 = cc.W_enc.to(dtype).flatten(0, 1), cc.b_enc.to(dtype)[:, None]
        z_NA = _first_block(cc, self, acts_NGD) @ W_AD.t()
        return FormedEncoding(cc, acts_NGD, z_NA.view(-1, len(b_L1), cc.group.order) + b_L1)

    def chosen(self, cc: Dictionary) -> int | None:
        """Returns how many entries of z an example chooses, if only these need gradients, else None."""
        return cc.config.k if self.sparsity.gradient_is_sparse else None

    def upright_decoders(self, cc: Dictionary) -> Tensor:
        """Returns the decoders of pose 0, [L, G, D]."""
        return cc.W_dec

    def encode_maps(self, cc: Dictionary, maps: Tensor, points: Tensor, interpolation: str) -> SparseLatents:
        if cc.config.encoder != "orbit":
            return super().encode_maps(cc, maps, points, interpolation)
        encoding = MapEncoding(cc, maps, points, interpolation, self.chosen(cc))
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
        b_enc_A = self._biases_of(cc, cc.b_enc[:, None].expand(-1, cc.group.order).flatten(), W_enc_AGD)
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
            W_P1D = cc.W_enc[latents_P, poses_P][:, None]
            return W_P1D, self._biases_of(cc, b_P, W_P1D)
        return cc.W_enc[latents_P[:, None], translation_table(cc.group, cc.W_enc.device)[poses_P]], b_P

    def _biases_of(self, cc: Dictionary, b_P: Tensor, W_PGD: Tensor) -> Tensor:
        """Returns the biases of these encoders for activations from which no `encoder_centre` is taken."""
        centre = self.encoder_centre(cc)
        if centre is None:
            return b_P
        return (b_P.double() - read_of(centre[None], W_PGD)).to(b_P)

    def residual_share(self, cc: Dictionary) -> Tensor:
        return torch.zeros_like(cc.b_enc)


def _first_block(cc: Dictionary, form: Form, acts_NGD: Tensor) -> Tensor:
    """Returns what an encoder "identity" reads, about its centre: [N, D]."""
    centre = form.encoder_centre(cc)
    return acts_NGD[:, 0] if centre is None else acts_NGD[:, 0] - centre.to(acts_NGD.dtype)
