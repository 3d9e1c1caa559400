"""Form: what every form of dictionary answers, and the encoder at work on one batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from groupcc import ops
from groupcc.errors import ArgumentError, argument_error
from groupcc.groups import Group
from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.forms.encodings import Reading
from groupcc.models.forms.poses import PoseSelection
from groupcc.models.latents import Decoder, Encoded, SparseLatents

__all__ = ["Atoms", "Form", "not_tied", "penalty_error", "read_of"]

BLOCK_BYTES = 2 << 20
"""On a CPU so many bytes of the dictionary are projected at a time (see `Form.prepare_gradients_`)."""


class Atoms(NamedTuple):
    """Every atom as the latent of an untied crosscoder: A = n_latents · n_poses of them, that of latent l in pose h the
    (l·H + h)-th. `W_enc` [A, G or 1, D], `b_enc` [A], `W_dec` [A, G, D], `b_dec` [G or 1, D]."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


class Form:
    """How the atoms of a dictionary come from its parameters, and how they are read, written and trained.

    A form has no state. Each method is given the crosscoder (`cc`) whose parameters it reads. A latent has H poses, 1
    or |G|; latent l in pose h is atom l·H + h. The defaults here are those of latents without poses, each its own atom.
    """

    has_poses: ClassVar[bool] = False
    """Whether latents have |G| poses. Then they are base latents, `SparseLatents.poses` says in which pose each is
    active, and the family of its poses is given by construction."""

    has_residuals: ClassVar[bool] = False
    """Whether the poses of a latent may differ by more than a translation (`residual_share`)."""

    translates_exactly: ClassVar[bool] = False
    """Whether the atoms of a latent are translates of one another, so that a translated orbit moves its poses alone."""

    without_latents: ClassVar[tuple[str, ...]] = ("b_dec",)
    """Parameters whose first axis is not the latent."""

    def __init__(self, selection: PoseSelection) -> None:
        self.selection = selection
        self.sparsity = selection.sparsity

    # Configuration

    @classmethod
    def defaults(cls, config: CrosscoderConfig, group: Group) -> dict[str, Any]:
        """Returns the values of fields that the user left at None."""
        return {}

    @classmethod
    def check(cls, config: CrosscoderConfig, group: Group) -> None:
        """ArgumentError for fields that this form cannot use."""
        if config.residual_penalty is not None:
            raise penalty_error(config)
        if config.pose is not None and config.n_latents % group.order:
            raise argument_error(
                "n_latents",
                expected=f"a multiple of |{group}| = {group.order} with pose={config.pose!r} and tied=False",
                got=config.n_latents,
                remedy="Latents then come as the |G| poses of one; pose=None takes each for itself.",
            )

    @classmethod
    def n_poses(cls, group: Group) -> int:
        """H, the poses of a latent: |G| if latents have poses, else 1."""
        return group.order if cls.has_poses else 1

    def together(self, group: Group) -> int:
        """Returns how many latents in a row are the poses of one: 1 if latents have poses of their own."""
        return 1 if self.has_poses else self.selection.together(group.order)

    def selectable(self, config: CrosscoderConfig, group: Group) -> tuple[str, int]:
        """Returns what can be active at once, in words, and how many of them there are."""
        return self.selection.selectable(config.n_latents, config.n_latents * self.n_poses(group), group.order)

    def described(self, config: CrosscoderConfig) -> str:
        """What `repr` of a crosscoder says of its form."""
        return ""

    # Parameters

    def encoder_blocks(self, config: CrosscoderConfig, group: Group) -> int:
        """How many blocks of each latent's encoder are parameters."""
        return group.order if config.encoder == "orbit" else 1

    def bias_blocks(self, group: Group) -> int:
        """How many blocks b_dec has."""
        return group.order

    def add_parameters(self, cc: Dictionary, W_dec_LGD: Tensor) -> None:
        """Registers the parameters: these decoders, their transpose as the encoder, biases of 0."""
        L, _, D = W_dec_LGD.shape
        cc.W_dec = nn.Parameter(W_dec_LGD)
        blocks = self.encoder_blocks(cc.config, cc.group)
        cc.W_enc = nn.Parameter((W_dec_LGD[:, :blocks] * cc.encoder_gain).contiguous())
        cc.b_enc = nn.Parameter(torch.zeros(L))
        cc.b_dec = nn.Parameter(torch.zeros(self.bias_blocks(cc.group), D))

    def biases(self, cc: Dictionary) -> list[Tensor]:
        """The parameters that scale with the activations."""
        return [cc.b_enc, cc.b_dec]

    def centre(self, cc: Dictionary, centre_GD: Tensor) -> Tensor:
        """Returns the centre [G, D] nearest to this one that b_dec can hold."""
        return centre_GD

    def fold_centre_(self, cc: Dictionary, centre_GD: Tensor) -> None:
        """See `GroupCrosscoder.fold_centre_`. The products are formed in fp64 and rounded once."""
        cc.b_dec.copy_(cc.b_dec.double() + centre_GD)
        cc.b_enc.copy_(cc.b_enc.double() - read_of(centre_GD, cc.W_enc))

    def encoder_centre(self, cc: Dictionary) -> Tensor | None:
        """Returns what the encoder takes from each block it reads, [D], if b_enc cannot hold it; else None."""
        return None

    def start_latents_(self, cc: Dictionary, latents_M: Tensor, directions_MGD: Tensor) -> None:
        """W_dec of these latents = `directions`, and W_enc their transpose, as at the start."""
        directions = directions_MGD.to(cc.W_dec)
        latents = latents_M.to(directions.device)
        cc.W_dec[latents] = directions
        cc.W_enc[latents] = directions[:, : cc.W_enc.shape[1]] * cc.encoder_gain

    def reset_(self, cc: Dictionary, latents_M: Tensor) -> None:
        """What else starts anew with these latents: b_enc, which then takes b_dec from what the encoder reads."""
        b_dec_GD = self.decoder_bias(cc).double().expand(cc.group.order, -1)
        cc.b_enc[latents_M] = -read_of(b_dec_GD, cc.W_enc)[latents_M].to(cc.b_enc)

    # Encoding

    def pre_acts(self, cc: Dictionary, acts_NGD: Tensor) -> Tensor:
        """See `GroupCrosscoder.pre_acts`."""
        raise NotImplementedError

    def read(self, cc: Dictionary, acts_NGD: Tensor) -> Reading:
        """Returns the encoder at work on this batch."""
        raise NotImplementedError

    def encode_maps(self, cc: Dictionary, maps: Tensor, points: Tensor, interpolation: str) -> SparseLatents:
        """See `GroupCrosscoder.encode_maps`."""
        return self.read(cc, cc.accept(ops.orbit_gather(maps, points, interpolation))).encode().latents

    # Decoding

    def decoder(self, cc: Dictionary) -> tuple[Tensor, Tensor]:
        """Returns the W_dec [R, G, D] and the b_dec that `decode` and `decode_loss` read, in the parameters' dtype."""
        return cc.W_dec, self.decoder_bias(cc)

    def decoder_bias(self, cc: Dictionary) -> Tensor:
        """Returns what b_dec adds to each block, [G, D], or [1, D] if it is one for all blocks."""
        return cc.b_dec

    def rows(self, cc: Dictionary, latents: SparseLatents) -> Tensor:
        """Returns which row of `decoder` each entry of the latents writes, int64 [N, K]."""
        return latents.indices

    def decode(self, cc: Dictionary, latents: SparseLatents, decoder: Decoder) -> Tensor:
        """Returns the reconstruction [N, G, D]."""
        return ops.sparse_decode(latents.acts, self.rows(cc, latents), *decoder)

    def decode_loss(
        self, cc: Dictionary, latents: SparseLatents, decoder: Decoder, target_NGD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns Σ (â − target)², a scalar, and â − target [N, G, D]."""
        error_G, left = ops.decode_loss(latents.acts, self.rows(cc, latents), *decoder, target_NGD)
        return error_G.sum(), left

    def encoded_loss(
        self, cc: Dictionary, encoded: Encoded, decoder: Decoder, target_NGD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`decode_loss` of what was encoded: one dense product if it is dense."""
        if encoded.dense is None:
            return self.decode_loss(cc, encoded.latents, decoder, target_NGD)
        W_dec, b_dec = decoder
        assert b_dec is not None
        left = (encoded.dense @ W_dec.flatten(1)).view_as(target_NGD) + b_dec - target_NGD
        return left.to(torch.promote_types(left.dtype, torch.float32)).square().sum(), left

    # Training

    @contextmanager
    def training_step(self, cc: Dictionary, lr: float) -> Iterator[list[Tensor]]:
        """See `GroupCrosscoder.training_step`."""
        self.prepare_gradients_(cc)
        yield [parameter.grad for parameter in cc.parameters() if parameter.grad is not None]
        self.normalise_(cc)

    @torch.no_grad()
    def prepare_gradients_(self, cc: Dictionary) -> None:
        """At decoder norm "unit" removes each gradient's part along its decoder."""
        W, gradient = cc.W_dec, cc.W_dec.grad
        if cc.config.decoder_norm == "unit" and gradient is not None:
            # On a CPU a few latents at a time: a product of the dictionary's size would go through fresh memory,
            # whose page faults cost several times the arithmetic.
            latents = len(W) if W.is_cuda else max(1, BLOCK_BYTES // (W[0].numel() * W.element_size()))
            for W_block, block in zip(W.split(latents), gradient.split(latents), strict=True):
                along = (block * W_block).sum((1, 2), keepdim=True)
                block.addcmul_(along, W_block, value=-1)

    @torch.no_grad()
    def normalise_(self, cc: Dictionary) -> None:
        """At decoder norm "unit" brings every atom to norm 1 over all blocks; an atom of zeros stays."""
        if cc.config.decoder_norm == "unit":
            norm = cc.W_dec.flatten(1).norm(dim=1).clamp_min(1e-12)
            cc.W_dec.div_(norm.view(-1, 1, 1))

    def likeness(self, directions_NGD: Tensor, group: Group) -> Tensor:
        """Returns the cosine of every two of these unit vectors, [N, N]; with poses the largest of their translates."""
        return directions_NGD.flatten(1) @ directions_NGD.flatten(1).t()

    # Atoms, for what reads a trained dictionary

    def atoms(self, cc: Dictionary) -> Atoms:
        """Returns all atoms written out."""
        return Atoms(cc.W_enc, cc.b_enc, cc.W_dec, cc.b_dec)

    def atom_numbers(self, latents: SparseLatents, group: Group) -> Tensor:
        """Returns the atom that each entry of the latents is, int64 [N, K]: l·H + pose."""
        return latents.indices

    def atoms_of(self, latents_M: Tensor, group: Group) -> Tensor:
        """Returns all atoms of these latents, int64 [M·H], latent after latent."""
        return latents_M

    def moved_atoms(self, atoms_M: Tensor, element: int, group: Group) -> Tensor | None:
        """Returns the atom that is R_h of each of these, h = `element`: latent l in pose hp for that in pose p.

        None: the form doesn't know, and they have to be looked for.
        """
        return None

    def upright(self, cc: Dictionary) -> tuple[Tensor, Tensor]:
        """Returns what atoms and bias write into block e, the upright image's, in fp32: [A, D] and [D]."""
        return cc.W_dec.detach().float()[:, 0], cc.b_dec.detach().float()[0]

    def decoder_rows(self, cc: Dictionary, latents_P: Tensor, poses_P: Tensor | None) -> Tensor:
        """Returns the decoders [P, G, D] of latents, or of the atoms (latent, pose)."""
        return cc.W_dec[latents_P]

    def encoder_rows(self, cc: Dictionary, latents_P: Tensor, poses_P: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns W [P, G or 1, D] and b [P] of latents, or of the atoms (latent, pose): pre = Σ_g ⟨a_g, W[·, g]⟩ + b.

        The one block of an encoder "identity" reads a_0. Of latents with poses and without `poses_P`: what the poses
        share, W_l and b_l, always of |G| blocks; they read activations less `encoder_centre`. Indices on the
        crosscoder's device.
        """
        return cc.W_enc[latents_P], cc.b_enc[latents_P]

    def residual_share(self, cc: Dictionary) -> Tensor:
        """See `GroupCrosscoder.residual_share`."""
        raise not_tied('Train one with tied="residual".')


def read_of(acts_GD: Tensor, W_LGD: Tensor) -> Tensor:
    """Returns Σ_g ⟨acts[g], W[l, g]⟩ over the blocks that W has, fp64 [L]."""
    blocks = W_LGD.shape[1]
    # A few latents at a time: a copy of the whole encoder in fp64 could be too much.
    return torch.cat([W.double().flatten(1) @ acts_GD[:blocks].double().flatten() for W in W_LGD.split(256)])


def not_tied(remedy: str) -> ArgumentError:
    """The error for what only latents with poses have."""
    return argument_error("self", expected="a tied crosscoder", got="tied=False", remedy=remedy)


def penalty_error(config: CrosscoderConfig) -> ArgumentError:
    """The error for a residual_penalty that is none, or that no residual is there for."""
    return argument_error(
        "residual_penalty",
        expected='a number >= 0, with tied="residual" alone',
        got=f"{config.residual_penalty!r} with tied={config.tied!r}",
        remedy='Leave it out for the default; float("inf") is as tied, 0 as untied.',
    )
