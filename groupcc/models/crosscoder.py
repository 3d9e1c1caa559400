"""GroupCrosscoder: one sparse dictionary over the activations under every transform."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from groupcc import ops
from groupcc.errors import argument_error
from groupcc.groups import Group, group
from groupcc.models.config import CrosscoderConfig
from groupcc.models.latents import SparseLatents
from groupcc.models.sparsity import aux_loss, l1_penalty, select

__all__ = ["CrosscoderOutput", "GroupCrosscoder"]


class CrosscoderOutput(NamedTuple):
    """What a forward pass returns.

    - `reconstruction` [N, G, D].
    - `latents`: the active ones.
    - `losses`: scalars; `total` is what training minimises, `reconstruction` = mean over N, G, D of (â − a)²,
      `l1` and `aux` where they are on (unweighted).
    """

    reconstruction: torch.Tensor
    latents: SparseLatents
    losses: dict[str, torch.Tensor]


class GroupCrosscoder(nn.Module):
    """pre = Σ_g a_g W_enc[g] + b_enc; f = sparsify(pre) ≥ 0; â_g = Σ_l f_l W_dec[l, g] + b_dec[g].

    With encoder "identity" the sum has block 0 alone. Parameters, all fp32: `W_enc` [G or 1, D, L], `b_enc` [L],
    `W_dec` [L, G, D], `b_dec` [G, D]. Buffers: `threshold` [] ("batchtopk" at inference) and `since_fired` int64 [L]
    (examples since each latent last fired, in training).

    Starts with random unit-norm decoders and the encoder as their transpose; `seed` makes it repeatable.
    `groupcc.train` sets the biases and the scale from the data. Gorton 2024 (arXiv:2410.24184), section 2;
    crosscoders: Lindsey et al. 2024.
    """

    threshold: torch.Tensor
    since_fired: torch.Tensor

    def __init__(self, config: CrosscoderConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.group: Group = group(config.group)
        self.provenance: dict[str, Any] = {}
        G, D, L = self.group.order, config.d_in, config.n_latents
        generator = torch.Generator().manual_seed(seed)
        W_dec = torch.randn(L, G, D, generator=generator)
        W_dec /= W_dec.flatten(1).norm(dim=1).view(L, 1, 1)
        self.W_dec = nn.Parameter(W_dec)
        if config.encoder == "orbit":
            self.W_enc = nn.Parameter(W_dec.permute(1, 2, 0).contiguous())
        else:
            # Block 0 holds 1/|G| of the decoder's power: scaled so that both encoders start with equal gain.
            self.W_enc = nn.Parameter(W_dec[:, :1].permute(1, 2, 0).contiguous() * G)
        self.b_enc = nn.Parameter(torch.zeros(L))
        self.b_dec = nn.Parameter(torch.zeros(G, D))
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("since_fired", torch.zeros(L, dtype=torch.int64))

    def extra_repr(self) -> str:
        c = self.config
        return f"{c.group}, d_in={c.d_in}, n_latents={c.n_latents}, {c.sparsity}, k={c.k}, encoder={c.encoder}"

    def pre_acts(self, acts: torch.Tensor) -> torch.Tensor:
        """pre [N, L] of acts [N, G, D]. An encoder "identity" reads acts[:, 0] only."""
        self._check(acts)
        blocks = self.W_enc.shape[0]
        flat = acts[:, :blocks].flatten(1)
        return torch.addmm(self.b_enc.to(flat.dtype), flat, self.W_enc.reshape(flat.shape[1], -1).to(flat.dtype))

    def encode(self, acts: torch.Tensor) -> SparseLatents:
        """The active latents of acts [N, G, D]."""
        return select(self.pre_acts(acts), self.config, self.threshold, self.training)[0]

    def decode(self, latents: SparseLatents) -> torch.Tensor:
        """Reconstruction [N, G, D]."""
        dtype = latents.acts.dtype
        return ops.sparse_decode(latents.acts, latents.indices, self.W_dec.to(dtype)) + self.b_dec.to(dtype)

    def forward(self, acts: torch.Tensor) -> CrosscoderOutput:
        """Reconstruction, latents and losses of acts [N, G, D] (fp32, or what autocast makes of it).

        total = mean (â − a)² + λ·l1/(|G|·D) + aux_coefficient·aux. In training mode `since_fired` and, with
        "batchtopk", the running threshold are updated. ArgumentError for wrong shapes, and for NaN or infinity in
        `acts`, naming the first bad row.
        """
        config = self.config
        pre = self.pre_acts(acts)
        latents, dense, batch_threshold = select(pre, config, self.threshold, self.training)
        if dense is None:
            reconstruction = self.decode(latents)
        else:
            L, G, D = self.W_dec.shape
            reconstruction = (dense @ self.W_dec.to(dense.dtype).view(L, G * D)).view(-1, G, D) + self.b_dec
        residual = acts - reconstruction
        wide = torch.promote_types(residual.dtype, torch.float32)
        losses = {"reconstruction": residual.to(wide).square().mean()}
        losses["total"] = losses["reconstruction"]
        if config.sparsity == "l1":
            losses["l1"] = l1_penalty(latents, self.W_dec, config.l1_penalty)
            scale = config.l1_coefficient / (self.group.order * config.d_in)
            losses["total"] = losses["total"] + scale * losses["l1"]
        if self.training:
            with torch.no_grad():
                self._count(latents, batch_threshold)
            if config.aux_k and config.aux_coefficient:
                dead = self.since_fired >= config.dead_after
                losses["aux"] = aux_loss(residual, pre, dead, self.W_dec, config.aux_k)
                losses["total"] = losses["total"] + config.aux_coefficient * losses["aux"]
        return CrosscoderOutput(reconstruction, latents, losses)

    def _count(self, latents: SparseLatents, batch_threshold: torch.Tensor | None) -> None:
        n = latents.acts.shape[0]
        fired = torch.zeros_like(self.since_fired, dtype=torch.bool)
        fired[latents.indices[latents.acts > 0]] = True
        self.since_fired.add_(n).masked_fill_(fired, 0)
        if batch_threshold is not None and n:
            # Starts at the first batch's value rather than creeping up from 0.
            started = self.threshold > 0
            blended = torch.where(started, 0.99 * self.threshold + 0.01 * batch_threshold, batch_threshold)
            self.threshold.copy_(blended)

    @torch.no_grad()
    def normalise_decoder_(self) -> None:
        """‖W_dec[l]‖ = 1 over all blocks, where the configuration holds it there; a zero latent stays zero."""
        if self.config.decoder_norm == "unit":
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
        for tensor in (self.b_enc, self.b_dec, self.threshold):
            tensor.div_(scale)

    def save_pretrained(self, directory: str | Path) -> Path:
        """Writes `cfg.json` and `crosscoder.safetensors` to a new or replaced `directory`, atomically.

        ArgumentError where it holds anything else: that would be lost.
        """
        from groupcc.models.pretrained import save

        return save(self, Path(directory))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> GroupCrosscoder:
        """Reads what `save_pretrained` wrote. DataError where something is missing or damaged."""
        from groupcc.models.pretrained import load

        return load(Path(directory))

    def state(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers by name, detached, contiguous, on the CPU."""
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}

    def fingerprint(self) -> str:
        """Hex SHA-256 of every parameter and buffer: equal weights, equal fingerprints."""
        digest = hashlib.sha256()
        for name, value in self.state().items():
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.numpy().tobytes())
        return digest.hexdigest()

    def _check(self, acts: torch.Tensor) -> None:
        expected = (self.group.order, self.config.d_in)
        if acts.dim() != 3 or acts.shape[1:] != expected or not acts.is_floating_point():
            raise argument_error(
                "acts",
                expected=f"a floating-point tensor [N, G, D] = [N, {expected[0]}, {expected[1]}]",
                got=f"{acts.dtype} of shape {tuple(acts.shape)}",
                remedy="Orbits must come from the crosscoder's group and layer.",
            )
        # A sum is finite only if every term is, short of overflow, which the slow look then rules out.
        if not bool(acts.sum(dtype=torch.float32).isfinite()):
            bad = (~acts.isfinite()).flatten(1).any(1).nonzero().flatten()
            if bad.numel():
                raise argument_error(
                    "acts",
                    expected="finite numbers",
                    got=f"NaN or infinity in {bad.numel()} rows, the first of them row {int(bad[0])}",
                    remedy="Find the images behind these rows; harvest reports them by name.",
                )
