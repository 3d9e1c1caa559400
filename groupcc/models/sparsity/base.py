"""Sparsity: what every kind of sparsity answers, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.options import Option

__all__ = ["ForwardPass", "Sparsity"]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A forward pass, as the losses of a sparsity read it.

    - `encoded`: what was chosen, `encoded.latents` among it.
    - `rows()` int64 [N, K]: which row of `W_dec` each entry of the latents writes.
    - `W_dec` [R, G, D]: the decoders of all rows, in the parameters' dtype.
    - `acts` [N, G, D]: the activations. `residual` [N, G, D]: â − a.
    - `reconstruction`: the mean of (â − a)², a scalar, with gradients.
    - `decode_error(latents)`: Σ (â − a)², a scalar, of other latents of the same examples, with gradients.
    - `progress`: the share of training that is done, for weights that rise over training.
    """

    encoded: Encoded
    rows: Callable[[], Tensor]
    W_dec: Tensor
    acts: Tensor
    residual: Tensor
    reconstruction: Tensor
    decode_error: Callable[[SparseLatents], Tensor]
    progress: float


class Sparsity:
    """How latents are chosen from pre-activations, and what training adds to the loss for it.

    A kind has no state of its own. What it learns or counts are parameters and buffers of the crosscoder that each
    method is given. Subclasses override what differs; the defaults are those of a kind that chooses k latents.
    """

    options: ClassVar[tuple[Option, ...]] = ()
    """The settings of the kind beside the configuration's fields; `config.sparsity_options` holds their values."""

    uses_k: ClassVar[bool] = True
    """Whether `config.k` says how many latents are active."""

    free_decoders: ClassVar[bool] = False
    """Whether decoders keep the norm that they learn, unless the configuration says otherwise."""

    gradient_is_sparse: ClassVar[bool] = True
    """Whether only chosen latents get a gradient, so that it may be computed for these alone."""

    def check(self, config: CrosscoderConfig) -> None:
        """ArgumentError for fields that this kind cannot use."""

    def add_state(self, crosscoder: Dictionary) -> None:
        """Registers what the kind keeps on the crosscoder.

        Every crosscoder has the buffer `threshold` [], since its files hold one whatever the kind.
        """
        crosscoder.register_buffer("threshold", torch.zeros(()))

    def encode(self, x_NM: Tensor, W_enc_ML: Tensor, b_enc_L: Tensor, cc: Dictionary) -> Encoded:
        """Returns `select` of pre = x W_enc + b_enc, column l being latent l. A kind may do without pre in memory."""
        return self.select(torch.addmm(b_enc_L, x_NM, W_enc_ML), cc)

    def select(self, pre_NR: Tensor, cc: Dictionary, which_NR: Tensor | None = None) -> Encoded:
        """Returns the chosen entries of pre-activations; `indices` are columns.

        `which_NR` int64: the latent of each entry, for thresholds by latent; None if column l is latent l. Entries of
        −inf are never chosen. `cc.training` says whether the batch may decide (see the kinds).
        """
        raise NotImplementedError

    def lowest(self, values_NR: Tensor, cc: Dictionary) -> Tensor | None:
        """Returns a number below which no entry could be chosen, given the largest entries of each example, falling.

        Non-maximum suppression stops there. None: the `config.k` largest of each example are enough.
        """
        return None

    def losses(self, seen: ForwardPass, cc: Dictionary) -> dict[str, tuple[Tensor, float]]:
        """Returns (value, weight) by name; the total loss is the reconstruction error and Σ weight · value."""
        return {}

    def after_batch_(self, encoded: Encoded, cc: Dictionary) -> None:
        """Updates the kind's state with a training batch."""

    def fold_scale_(self, scale: float, cc: Dictionary) -> None:
        """The kind's part of `GroupCrosscoder.fold_scale_`."""
        cc.threshold.div_(scale)

    def reset_(self, latents_M: Tensor, cc: Dictionary) -> None:
        """What of the kind's state starts anew with these latents."""

    def copy_state_(self, source: Dictionary, target: Dictionary, copies: int = 1) -> None:
        """Takes over another crosscoder's state; latent l of `source` is the latents l·copies + … of `target`."""
        target.threshold.copy_(source.threshold)
