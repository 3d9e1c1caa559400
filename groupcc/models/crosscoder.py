"""GroupCrosscoder: one sparse dictionary over the activations under every transform."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupcc import ops
from groupcc.errors import argument_error
from groupcc.groups import Group, group
from groupcc.models import residual, tied
from groupcc.models.auxiliary import aux_loss
from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.maps import encode_maps
from groupcc.models.poses import select_poses, select_strongest
from groupcc.models.sparsity import sparsity_of
from groupcc.models.sparsity.base import ForwardPass, Sparsity

__all__ = ["CrosscoderOutput", "GroupCrosscoder"]


@dataclass(frozen=True, eq=False)
class CrosscoderOutput:
    """What a forward pass returns.

    - `latents`: the active ones.
    - `losses`: scalars; `total` is what training minimises, `reconstruction` = mean over N, G, D of (â − a)²,
      `l1` and `aux` where they are on (unweighted).
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
    `W_dec` [L, G, D], `b_dec` [G, D]. Buffers: `threshold` [] ("batchtopk" at inference) and `since_fired`
    int64 [L] (examples since each latent last fired, in training).

    With `tied`, W_enc, b_enc and W_dec are those of the base latents, W_dec[l] = d_l and its atoms R_h d_l, in the same
    shapes; W_enc has all |G| blocks whatever the encoder, pre-activations are [N, L, G] (every latent in every pose,
    design: z[h] = Σ_g ⟨W_l[gh], a_g⟩), `b_dec` [1, D] is one for all blocks, and latents have `poses`. The orbit of
    T_h x then has the latents and acts of x, in poses h·pose ("orbit" encoder).

    With `tied="residual"` the atoms are R_h d_l + Δ[l, h], and W_enc and the biases have residuals too:
    `groupcc.models.residual`. All start at 0; while training, base and residual are orthogonal.

    Starts with random unit-norm decoders and the encoder as their transpose; `seed` makes it repeatable.
    `groupcc.train` sets the biases and the scale from the data. Gorton 2024 (arXiv:2410.24184), section 2;
    crosscoders: Lindsey et al. 2024.
    """

    def __init__(self, config: CrosscoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.sparsity: Sparsity = sparsity_of(config.sparsity)
        self.group: Group = group(config.group)
        self.provenance: dict[str, Any] = {}
        G, D, L = self.group.order, config.d_in, config.n_latents
        generator = torch.Generator().manual_seed(seed)
        W_dec = torch.randn(L, G, D, generator=generator)
        W_dec /= W_dec.flatten(1).norm(dim=1).view(L, 1, 1)
        self.W_dec = nn.Parameter(W_dec)
        blocks = G if config.encoder == "orbit" or config.tied else 1
        self.W_enc = nn.Parameter((W_dec[:, :blocks] * self.encoder_gain).contiguous())
        self.b_enc = nn.Parameter(torch.zeros(L))
        self.b_dec = nn.Parameter(torch.zeros(1 if config.tied else G, D))
        if config.tied == "residual":
            residual.add_parameters(self)
        self.sparsity.add_state(self)
        self.register_buffer("since_fired", torch.zeros(L, dtype=torch.int64))

    def extra_repr(self) -> str:
        c = self.config
        poses = f", tied, pose={c.pose}" if c.tied else ""
        if c.tied == "residual":
            poses += f", residual_penalty={c.residual_penalty:g}"
        return f"{c.group}, d_in={c.d_in}, n_latents={c.n_latents}, {c.sparsity}, k={c.k}, encoder={c.encoder}{poses}"

    def pre_acts(self, acts: torch.Tensor) -> torch.Tensor:
        """pre [N, L] of acts [N, G, D], [N, L, G] where tied. An encoder "identity" reads acts[:, 0] only."""
        self._check_shape(acts)
        self._check_finite(acts)
        if self.config.tied is True:
            return tied.pre_acts(*self._tied_encoder(acts), self.group, self.config.encoder)
        x, W_enc, b_enc = self._encoder(acts)
        pre = torch.addmm(b_enc, x, W_enc)
        return pre.unflatten(1, (-1, self.group.order)) if self.config.tied else pre

    def encode(self, acts: torch.Tensor) -> SparseLatents:
        """The active latents of acts [N, G, D]."""
        self._check_shape(acts)
        return self._encode(acts)[0].latents

    def encode_maps(self, maps: torch.Tensor, points: torch.Tensor, interpolation: str = "bspline") -> SparseLatents:
        """The active latents of `ops.orbit_gather(maps, points, interpolation)`.

        Its activations are never stored whole, except with `tied` where no Triton kernel encodes from the maps.

        `maps` [B, S, H, W, D]: a layer's output under every transform (S = |G|, in element order), or for the
        untransformed image alone (S = 1). `points` [G, P, 2]: where element g finds position p, as (x, y) in map
        pixels. Example b·P + p is image b at position p. ArgumentError for shapes, points outside the maps, and NaN or
        infinity in what the encoder reads, naming the first such example.
        """
        return encode_maps(self, maps, points, interpolation)

    def decode(self, latents: SparseLatents) -> torch.Tensor:
        """Reconstruction [N, G, D]."""
        W_dec, b_dec = (tensor.to(latents.acts.dtype) for tensor in self._decoder())
        if self.config.tied is True:
            return tied.decode(latents, W_dec, b_dec, self.group)
        return ops.sparse_decode(latents.acts, self._rows(latents), W_dec, b_dec)

    def forward(self, acts: torch.Tensor) -> CrosscoderOutput:
        """Reconstruction, latents and losses of acts [N, G, D] (fp32, or what autocast makes of it).

        total = mean (â − a)² + λ·l1/(|G|·D) + aux_coefficient·aux. In training mode `since_fired` and, with
        "batchtopk", the running threshold are updated. ArgumentError for wrong shapes, and for NaN or infinity in
        `acts`, naming the first bad row.
        """
        self._check_shape(acts)
        config = self.config
        encoded, pre = self._encode(acts)
        latents, dense = encoded.latents, encoded.dense
        acts = acts.to(latents.acts.dtype)
        decoder = self._decoder()
        W_dec, b_dec = (tensor.to(acts.dtype) for tensor in decoder)
        if dense is None:
            error, left = self._decode_loss(latents, W_dec, b_dec, acts)
        else:
            left = (dense @ W_dec.flatten(1)).view_as(acts) + b_dec - acts
            error = left.to(torch.promote_types(left.dtype, torch.float32)).square().sum()
        losses = {"reconstruction": error / acts.numel()}
        losses["total"] = losses["reconstruction"]
        seen = ForwardPass(
            encoded, self._rows(latents), decoder[0], acts, left, partial(self._error, W_dec, b_dec, acts)
        )
        for name, (value, weight) in self.sparsity.losses(seen, self).items():
            losses[name] = value
            losses["total"] = losses["total"] + weight * value
        if self.training:
            with torch.no_grad():
                self._count(encoded)
            if config.aux_k and config.aux_coefficient:
                dead = self.since_fired >= config.dead_after
                if config.tied:
                    strongest = partial(tied.strongest, *self._tied_encoder(acts), self.group, config, pre)
                    aux_error = partial(self._aux_error, acts, W_dec)
                    losses["aux"] = tied.aux_loss(left, error, strongest, dead, config.aux_k, aux_error)
                else:
                    losses["aux"] = aux_loss(left, error, *self._encoder(acts), W_dec, dead, config.aux_k)
                losses["total"] = losses["total"] + config.aux_coefficient * losses["aux"]
        return CrosscoderOutput(latents, losses, acts, left)

    def _decode_loss(
        self, latents: SparseLatents, W_dec: torch.Tensor, b_dec: torch.Tensor | None, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Σ (â − target)², a scalar, and â − target [N, G, D]; W_dec as `_decoder` has it."""
        if self.config.tied is True:
            return tied.decode_loss(latents, W_dec, b_dec, target, self.group)
        error_G, left = ops.decode_loss(latents.acts, self._rows(latents), W_dec, b_dec, target)
        return error_G.sum(), left

    def _error(
        self, W_dec: torch.Tensor, b_dec: torch.Tensor, acts: torch.Tensor, latents: SparseLatents
    ) -> torch.Tensor:
        return self._decode_loss(latents, W_dec, b_dec, acts)[0]

    def _aux_error(
        self, acts: torch.Tensor, W_dec: torch.Tensor, latents: SparseLatents, target: torch.Tensor
    ) -> torch.Tensor:
        """Σ (â − target)² of latents as `tied.strongest` has them, with the gradients of their acts."""
        if self.config.tied is True:
            encoder = self._tied_encoder(acts)
            if tied.gradient_is_sparse(*encoder[:2], self.config, self.group):  # as `strongest` asks: none came from it
                latents = tied.encode_at(*encoder, latents, self.group)
        return self._decode_loss(latents, W_dec, None, target)[0]

    def _decoder(self) -> tuple[torch.Tensor, torch.Tensor]:
        """W_dec and b_dec as decoding reads them: those of the atoms where these are formed."""
        if self.config.tied != "residual":
            return self.W_dec, self.b_dec
        return residual.atoms(self.W_dec, self.residual_W_dec, self.group), self.b_dec + self.residual_b_dec

    def _rows(self, latents: SparseLatents) -> torch.Tensor:
        """Which rows of `_decoder` the latents are: where atoms are formed, l·G + pose."""
        if self.config.tied != "residual":
            return latents.indices
        assert latents.poses is not None
        return latents.indices * self.group.order + latents.poses

    def _encode(self, acts: torch.Tensor) -> tuple[Encoded, torch.Tensor | None]:
        """Returns what is chosen, and the pre-activations if they are formed. ArgumentError if acts are not finite."""
        if self.config.tied is True:
            encoder = (*self._tied_encoder(acts), self.group)
            sparse = tied.gradient_is_sparse(*encoder[:2], self.config, self.group)
            pre = None
            with torch.set_grad_enabled(torch.is_grad_enabled() and not sparse):
                if tied.keeps_no_poses(*encoder, self.config):
                    values, poses = tied.strongest(*encoder, self.config)
                    self._check_finite(acts, values)
                    encoded = select_strongest(self, values, poses)
                else:
                    pre = self.pre_acts(acts)
                    encoded = self._choose(pre)
            if sparse:
                encoded = encoded._replace(latents=tied.encode_at(*encoder[:3], encoded.latents, self.group))
            return encoded, pre
        if self.config.pose is None:
            self._check_finite(acts)
            return self.sparsity.encode(*self._encoder(acts), self), None
        pre = self.pre_acts(acts)
        return self._choose(pre), pre

    def _choose(self, pre: torch.Tensor) -> Encoded:
        """`_encode` of pre-activations."""
        config, G = self.config, self.group.order
        if config.pose is None:
            return self.sparsity.select(pre, self)
        if config.tied:
            upright = self.W_dec if config.tied is True else self.W_dec + self.residual_W_dec[:, 0]
            return select_poses(self, pre, upright)
        # Latents l·G + h are the poses h of one, of which pose 0 is the base latent itself.
        base = self.W_dec.unflatten(0, (-1, G))[:, 0]
        pre = pre.unflatten(1, (-1, G))
        encoded = select_poses(self, pre, base)
        latents = encoded.latents
        assert latents.poses is not None
        return encoded._replace(latents=SparseLatents(latents.acts, latents.indices * G + latents.poses))

    def _tied_encoder(self, acts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """acts [N, G, D], W_enc [L, G, D] and b_enc [L] in one dtype."""
        dtype = self.compute_dtype(acts)
        return acts.to(dtype), self.W_enc.to(dtype), self.b_enc.to(dtype)

    def _encoder(self, acts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the encoder reads of acts [N, G, D] as [N, M], its weights as [M, L], and b_enc [L], in one dtype."""
        dtype = self.compute_dtype(acts)
        W_enc, b_enc = residual.encoder(self) if self.config.tied == "residual" else (self.W_enc, self.b_enc)
        x = acts[:, : W_enc.shape[1]].flatten(1).to(dtype)
        return x, W_enc.flatten(1).to(dtype).t(), b_enc.to(dtype)

    def _count(self, encoded: Encoded) -> None:
        latents = encoded.latents
        n = latents.acts.shape[0]
        L = len(self.since_fired)
        fired = torch.zeros(L + 1, dtype=torch.bool, device=self.since_fired.device)
        fired[torch.where(latents.acts > 0, latents.indices, L)] = True  # L takes the padding
        self.since_fired.add_(n).masked_fill_(fired[:L], 0)
        self.sparsity.after_batch_(encoded, self)

    def untie(self) -> GroupCrosscoder:
        """The ordinary crosscoder with the same outputs: latent l·|G| + h is R_h of base latent l.

        Its configuration keeps `pose`, so that it selects alike; set to None (`dataclasses.replace`) every latent is
        chosen for itself. Counters and threshold come along. ArgumentError where it is not tied.
        """
        from groupcc.models.untie import untie

        return untie(self)

    @torch.no_grad()
    def normalise_decoder_(self) -> None:
        """‖W_dec[l]‖ = 1 over all blocks, where the configuration holds it there; a zero latent stays zero.

        Of atoms with residuals each one's norm is 1, and W_dec[l], their mean with the poses undone, is shorter.
        """
        if self.config.decoder_norm != "unit":
            return
        if self.config.tied == "residual" and self.config.residual_penalty != math.inf:
            residual.normalise_(self)
        else:
            norm = self.W_dec.flatten(1).norm(dim=1).clamp_min(1e-12)
            self.W_dec.div_(norm.view(-1, 1, 1))

    @torch.no_grad()
    def fold_scale_(self, scale: float) -> None:
        """From a crosscoder of activations times `scale` to one of the activations themselves.

        ReLU and the choice of the largest commute with a positive factor, so dividing b_enc, b_dec and the threshold
        is all: latents and reconstructions are then divided by `scale`, and W_dec keeps its norm. With `scale` a
        power of two this is exact, and `fold_scale_(1 / scale)` undoes it to the bit.
        """
        if not (scale > 0 and math.isfinite(scale)):
            raise argument_error("scale", expected="a positive number", got=scale, remedy="Powers of two are exact.")
        residuals = (self.residual_b_enc, self.residual_b_dec) if self.config.tied == "residual" else ()
        for tensor in (self.b_enc, self.b_dec, *residuals):
            tensor.div_(scale)
        self.sparsity.fold_scale_(scale, self)

    def residual_share(self) -> torch.Tensor:
        """How far each latent's atoms are from translates of one another: ‖Δ_l‖² / Σ_h‖W_dec[l, h]‖², fp32 [L].

        Δ_l is what of the atoms' decoders no base latent's translates can hold. 0 (always where `tied=True`): the
        symmetry is exact; 1: nothing is shared. ArgumentError where the crosscoder is not tied.
        """
        if not self.config.tied:
            raise argument_error(
                "self", expected="a tied crosscoder", got="tied=False", remedy='Train one with tied="residual".'
            )
        return torch.zeros_like(self.b_enc) if self.config.tied is True else residual.share(self)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Writes `cfg.json` and `crosscoder.safetensors` to a new or replaced `directory`, atomically.

        ArgumentError where it holds anything else: that would be lost.
        """
        from groupcc.models.files import save

        return save(self, Path(directory))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> GroupCrosscoder:
        """Reads what `save_pretrained` wrote. DataError where something is missing or damaged."""
        from groupcc.models.files import load

        return load(Path(directory))

    def state(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers by name, detached, contiguous, on the CPU."""
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}

    def fingerprint(self) -> str:
        """Hex SHA-256 of every parameter and buffer: equal weights, equal fingerprints.

        W_enc counts as [G or 1, D, L]. File format 1 stored it so, and atlases of that time hold such fingerprints.
        """
        digest = hashlib.sha256()
        for name, value in self.state().items():
            value = value.permute(1, 2, 0).contiguous() if name == "W_enc" else value
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()

    def _check_shape(self, acts: torch.Tensor) -> None:
        expected = G, D = self.group.order, self.config.d_in
        if acts.dim() != 3 or acts.shape[1:] != expected or not acts.is_floating_point():
            raise argument_error(
                "acts",
                expected=f"a floating-point tensor [N, G, D] = [N, {G}, {D}]",
                got=f"{acts.dtype} of shape {tuple(acts.shape)}",
                remedy="Orbits must come from the crosscoder's group and layer.",
            )

    def _check_finite(self, acts: torch.Tensor, seen: torch.Tensor | None = None) -> None:
        """ArgumentError where acts aren't finite; `seen`: something smaller that then isn't either."""
        # A sum is finite only if every term is, short of overflow, which the slow look then rules out.
        if not bool((acts if seen is None else seen).sum(dtype=torch.float32).isfinite()):
            bad = (~acts.isfinite()).flatten(1).any(1).nonzero().flatten()
            if bad.numel():
                raise argument_error(
                    "acts",
                    expected="finite numbers",
                    got=f"NaN or infinity in {bad.numel()} rows, the first of them row {int(bad[0])}",
                    remedy="Find the images behind these rows; harvest reports them by name.",
                )
