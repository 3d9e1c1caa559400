"""GroupCrosscoder: one sparse dictionary over the activations under every transform."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from groupcc.errors import ArgumentError, DataError, argument_error
from groupcc.groups import Group, group
from groupcc.models import files
from groupcc.models.auxiliary import aux_loss
from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.forms.base import Form
from groupcc.models.latents import Decoder, SparseLatents
from groupcc.models.sparsity.base import ForwardPass, Sparsity

__all__ = ["CrosscoderOutput", "GroupCrosscoder"]


@dataclass(frozen=True, eq=False)
class CrosscoderOutput:
    """What a forward pass returns.

    - `latents`: the active ones.
    - `losses`: scalars; `total` is what training minimises, `reconstruction` = mean over N, G, D of (â − a)²; those of
      the sparsity and `aux` where they are on (unweighted).
    - `acts`, `residual` [N, G, D]: a and â − a, in the dtype that the decoder computed in.
    - `reconstruction` [N, G, D]: â, formed when first asked for, since training has no use for it.
    """

    latents: SparseLatents
    losses: dict[str, torch.Tensor]
    acts: torch.Tensor
    residual: torch.Tensor

    @cached_property
    def reconstruction(self) -> torch.Tensor:
        return self.acts + self.residual


class GroupCrosscoder(Dictionary):
    """pre_l = Σ_g ⟨a_g, W_enc[l, g]⟩ + b_enc[l]; f = sparsify(pre) ≥ 0; â_g = Σ_l f_l W_dec[l, g] + b_dec[g].

    With encoder "identity" the sum has block 0 alone. Parameters, all fp32: `W_enc` [L, G or 1, D], `b_enc` [L],
    `W_dec` [L, G, D], `b_dec` [G, D]. Buffers: `threshold` [] (the sparsity says what for) and `since_fired` int64 [L]
    (examples since each latent last fired, in training). A sparsity may have parameters of its own.

    With `tied`, W_enc, b_enc and W_dec are those of the base latents, W_dec[l] = d_l and its atoms R_h d_l, in the same
    shapes; W_enc has all |G| blocks whatever the encoder, pre-activations are [N, L, G] (every latent in every pose:
    z[h] = Σ_g ⟨W_l[gh], a_g⟩), `b_dec` [1, D] is one for all blocks, and latents have `poses`. The orbit of T_h x then
    has the latents and acts of x, in poses h·pose ("orbit" encoder). With encoder "identity", a buffer `centre` [D] is
    taken from a_0 before it is read: each pose reads a_0 by another block, and b_enc has one number for all.

    With `tied="residual"` the atoms are R_h d_l + Δ[l, h], and W_enc and the biases have residuals too:
    `groupcc.models.forms.residual`.

    `form` and `sparsity` are the objects that know what differs between kinds (`groupcc.models.forms.base`,
    `groupcc.models.sparsity.base`). They follow from `config`.

    Starts with random unit-norm decoders and the encoder as their transpose; `seed` makes it repeatable.
    `groupcc.train` sets the biases and the scale from the data. Gorton 2024 (arXiv:2410.24184), section 2;
    crosscoders: Lindsey et al. 2024.
    """

    form: Form
    sparsity: Sparsity

    def __init__(self, config: CrosscoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.group: Group = group(config.group)
        self.provenance = {}
        W_dec = torch.randn(
            config.n_latents, self.group.order, config.d_in, generator=torch.Generator().manual_seed(seed)
        )
        W_dec /= W_dec.flatten(1).norm(dim=1).view(-1, 1, 1)
        self.form.add_parameters(self, W_dec)
        self.sparsity.add_state(self)
        self.register_buffer("since_fired", torch.zeros(config.n_latents, dtype=torch.int64))

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "config":  # a configuration that chooses latents otherwise brings other objects; shapes stay
            self.form = value.form
            self.sparsity = self.form.sparsity

    def extra_repr(self) -> str:
        c = self.config
        sizes = f"{c.group}, d_in={c.d_in}, n_latents={c.n_latents}, {c.sparsity}, k={c.k}, encoder={c.encoder}"
        return sizes + self.form.described(c)

    # Encoding and decoding

    def pre_acts(self, acts: torch.Tensor) -> torch.Tensor:
        """pre [N, L] of acts [N, G, D], [N, L, G] where latents have poses. An encoder "identity" reads acts[:, 0]
        only."""
        acts = self.accept(acts)
        self.check_finite(acts)
        return self.form.pre_acts(self, acts)

    def encode(self, acts: torch.Tensor) -> SparseLatents:
        """The active latents of acts [N, G, D]."""
        return self.form.read(self, self.accept(acts)).encode().latents

    def encode_maps(self, maps: torch.Tensor, points: torch.Tensor, interpolation: str = "bspline") -> SparseLatents:
        """The active latents of `ops.orbit_gather(maps, points, interpolation)`.

        Its activations are never stored whole, except with `tied` where no Triton kernel encodes from the maps.

        `maps` [B, S, H, W, D]: a layer's output under every transform (S = |G|, in element order), or for the
        untransformed image alone (S = 1). `points` [G, P, 2]: where element g finds position p, as (x, y) in map
        pixels. Example b·P + p is image b at position p. ArgumentError for shapes, points outside the maps, and NaN or
        infinity in what the encoder reads, naming the first such example.
        """
        if points.shape[0] != self.group.order:
            raise argument_error(
                "points",
                expected=f"[G, P, 2] with G = {self.group.order}",
                got=f"shape {tuple(points.shape)}",
                remedy="One row of points for each element of the crosscoder's group.",
            )
        return self.form.encode_maps(self, maps, points, interpolation)

    def decode(self, latents: SparseLatents) -> torch.Tensor:
        """Reconstruction [N, G, D]."""
        W_dec, b_dec = self.form.decoder(self)
        return self.form.decode(self, latents, Decoder(W_dec.to(latents.acts.dtype), b_dec.to(latents.acts.dtype)))

    def forward(self, acts: torch.Tensor, progress: float = 1.0) -> CrosscoderOutput:
        """Reconstruction, latents and losses of acts [N, G, D] (fp32, or what autocast makes of it).

        total = mean (â − a)² + the sparsity's losses times their weights + aux_coefficient·aux. In training mode
        `since_fired` and what the sparsity keeps of batches are updated. ArgumentError for wrong shapes, and for NaN or
        infinity in `acts`, naming the first bad row.

        `progress`: the share of training that is done, for weights of losses that rise over training.
        """
        acts = self.accept(acts)
        form, config, sparsity = self.form, self.config, self.sparsity
        reading = form.read(self, acts)
        encoded = reading.encode()
        latents = encoded.latents
        acts = acts.to(latents.acts.dtype)
        W_dec, b_dec = form.decoder(self)
        decoder = Decoder(W_dec.to(acts.dtype), b_dec.to(acts.dtype))
        error, left = form.encoded_loss(self, encoded, decoder, acts)
        losses = {"reconstruction": error / acts.numel()}
        losses["total"] = losses["reconstruction"]

        def error_of(others: SparseLatents, target: torch.Tensor, decoder: Decoder) -> torch.Tensor:
            return form.decode_loss(self, others, decoder, target)[0]

        decode_error = partial(error_of, target=acts, decoder=decoder)
        rows, mean = partial(form.rows, self, latents), losses["reconstruction"]
        seen = ForwardPass(encoded, rows, W_dec, acts, left, mean, decode_error, progress)
        for name, (value, weight) in sparsity.losses(seen, self).items():
            losses[name] = value
            losses["total"] = losses["total"] + weight * value
        if self.training:
            with torch.no_grad():
                sparsity.after_batch_(encoded, self)
                fired = torch.zeros(config.n_latents + 1, dtype=torch.bool, device=self.since_fired.device)
                fired[torch.where(latents.acts > 0, latents.indices, config.n_latents)] = True  # the last: padding
                self.since_fired.add_(len(acts)).masked_fill_(fired[:-1], 0)
            if config.aux_k and config.aux_coefficient:
                dead = self.dead
                aux_error = partial(error_of, decoder=decoder._replace(b_dec=None))
                losses["aux"] = aux_loss(left, error, dead, config.aux_k, reading.strongest, aux_error)
                losses["total"] = losses["total"] + config.aux_coefficient * losses["aux"]
        return CrosscoderOutput(latents, losses, acts, left)

    # Training

    @torch.no_grad()
    def start_biases_(self) -> None:
        """All biases 0, as `groupcc.train` starts: it reads activations about their centre."""
        for tensor in self.form.biases(self):
            tensor.zero_()

    @torch.no_grad()
    def fold_centre_(self, centre: torch.Tensor) -> None:
        """From a crosscoder of activations a − `centre` [G, D] to one of the activations a themselves.

        b_dec += centre, b_enc[l] −= Σ_g ⟨centre[g], W_enc[l, g]⟩, in fp64, rounded once. Latents then are the same and
        reconstructions are moved by `centre`. A form that cannot hold every centre is given one of `form.centre`.
        """
        self.form.fold_centre_(self, centre.to(self.b_dec.device, torch.float64))

    @torch.no_grad()
    def start_latents_(self, latents: torch.Tensor, directions: torch.Tensor) -> None:
        """W_dec of these latents [M] = `directions` [M, G, D]; W_enc its transpose, as at the start."""
        self.form.start_latents_(self, latents, directions)

    @torch.no_grad()
    def restart_latents_(self, latents: torch.Tensor, directions: torch.Tensor) -> None:
        """`start_latents_` of dead latents, with all else that belongs to them."""
        self.form.start_latents_(self, latents, directions)
        self.form.reset_(self, latents)
        self.sparsity.reset_(latents, self)
        self.since_fired[latents] = 0

    def training_step(self, lr: float) -> AbstractContextManager[list[torch.Tensor]]:
        """Around clipping and the optimizer's step at this learning rate, after the backward pass; gives the gradients.

        Before them what constraints forbid is taken from the gradients, after them parameters are brought back to the
        constraints. If an exception leaves the block, parameters stay as they are.
        """
        return self.form.training_step(self, lr)

    @torch.no_grad()
    def normalise_decoder_(self) -> None:
        """‖W_dec[l]‖ = 1 over all blocks, where the configuration holds it there; a zero latent stays zero.

        Of atoms with residuals each one's norm is 1, and W_dec[l], their mean with the poses undone, is shorter.
        """
        self.form.normalise_(self)

    @torch.no_grad()
    def fold_scale_(self, scale: float) -> None:
        """From a crosscoder of activations times `scale` to one of the activations themselves.

        ReLU and the choice of the largest commute with a positive factor, so dividing the biases and thresholds is all:
        latents and reconstructions are then divided by `scale`, and W_dec keeps its norm. With `scale` a power of two
        this is exact, and `fold_scale_(1 / scale)` undoes it to the bit.
        """
        if not (scale > 0 and math.isfinite(scale)):
            raise argument_error("scale", expected="a positive number", got=scale, remedy="Powers of two are exact.")
        for tensor in self.form.biases(self):
            tensor.div_(scale)
        self.sparsity.fold_scale_(scale, self)

    # Atoms

    @property
    def n_poses(self) -> int:
        """H: |G| if latents have poses, else 1. Latent l in pose h is atom l·H + h."""
        return self.form.n_poses(self.group)

    def encoder_rows(self, latents: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """W [n, H, G or 1, D] and b [n, H] of these latents: pre[·, h] = Σ_g ⟨a_g, W[·, h, g]⟩ + b[·, h].

        H is `n_poses`. The one block of an encoder "identity" reads a_0. Without gradients.
        """
        n, H, device = len(latents), self.n_poses, self.W_enc.device
        chosen = torch.tensor(list(latents), device=device).repeat_interleave(H)
        poses = torch.arange(H, device=device).repeat(n) if self.form.has_poses else None
        with torch.no_grad():
            W, b = self.form.encoder_rows(self, chosen, poses)
        return W.view(n, H, *W.shape[1:]), b.view(n, H)

    @torch.no_grad()
    def untie(self) -> GroupCrosscoder:
        """The ordinary crosscoder with the same outputs: latent l·|G| + h is R_h of base latent l.

        Its configuration keeps `pose`, so that it selects alike; set to None (`dataclasses.replace`) every latent is
        chosen for itself. Counters and thresholds come along. ArgumentError where it is not tied.
        """
        if not self.form.has_poses:
            raise argument_error(
                "self", expected="a tied crosscoder", got="tied=False", remedy="It has its own latents already."
            )
        config = replace(self.config, tied=False, residual_penalty=None, n_latents=self.config.n_atoms)
        untied = GroupCrosscoder(config).to(self.W_dec)
        for name, value in self.form.atoms(self)._asdict().items():
            getattr(untied, name).copy_(value)
        self.sparsity.copy_state_(self, untied, copies=self.n_poses)
        untied.since_fired.copy_(self.since_fired.repeat_interleave(self.n_poses))
        untied.provenance = dict(self.provenance)
        return untied.train(self.training)

    def residual_share(self) -> torch.Tensor:
        """How far each latent's atoms are from translates of one another: ‖Δ_l‖² / Σ_h‖W_dec[l, h]‖², fp32 [L].

        Δ_l is what of the atoms' decoders no base latent's translates can hold. 0 (always where `tied=True`): the
        symmetry is exact; 1: nothing is shared. ArgumentError where the crosscoder is not tied.
        """
        return self.form.residual_share(self)

    # Files

    def save_pretrained(self, directory: str | Path) -> Path:
        """Writes `cfg.json` and `crosscoder.safetensors` to a new or replaced `directory`, atomically.

        ArgumentError where it holds anything else: that would be lost.
        """
        return files.save(self, Path(directory))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> GroupCrosscoder:
        """Reads what `save_pretrained` wrote. DataError where something is missing or damaged."""
        return cls.from_stored(files.read(Path(directory)))

    @classmethod
    def from_stored(cls, stored: files.Stored) -> GroupCrosscoder:
        """Makes a crosscoder of what `files.read` gives. DataError if configuration and weights do not go together."""
        try:
            crosscoder = cls(CrosscoderConfig.from_dict(stored.config))
            # Before training was centred, no file had a centre.
            crosscoder.load_state_dict({**_without_centre(crosscoder), **stored.weights})
        except (ArgumentError, RuntimeError, TypeError) as error:
            raise DataError(f"{stored.directory} does not hold a usable crosscoder: {error}") from error
        crosscoder.provenance = stored.provenance
        return crosscoder.eval()

    def fingerprint(self) -> str:
        """Hex SHA-256 of every parameter and buffer: equal weights, equal fingerprints.

        W_enc counts as [G or 1, D, L], and a `centre` of 0 is left out. Files that older versions wrote have no
        centre, those of format 1 such a W_enc, and atlases hold their fingerprints.
        """
        digest = hashlib.sha256()
        for name, value in self.state().items():
            if name == "centre" and not value.any():
                continue
            value = value.permute(1, 2, 0).contiguous() if name == "W_enc" else value
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()


def _without_centre(crosscoder: GroupCrosscoder) -> dict[str, torch.Tensor]:
    centre = crosscoder.form.encoder_centre(crosscoder)
    return {} if centre is None else {"centre": torch.zeros_like(centre)}
