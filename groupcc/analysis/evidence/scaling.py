"""Latent scaling: whether a decoder block is empty because the data has nothing there, or because it was shrunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from groupcc.analysis.evidence.latent_products import latent_products, of_latents
from groupcc.analysis.symmetry.blocks import check_decoder
from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import parts_by_image
from groupcc.errors import argument_error
from groupcc.groups.tables import translation_table
from groupcc.models import GroupCrosscoder, SparseLatents
from groupcc.models.metrics import batch_starts

__all__ = ["EMPTY", "FOLDS", "SCALING_ERROR", "VERDICTS", "WRITTEN", "Scaling", "Verdict", "measure_scaling"]

EMPTY = 0.2
"""A block holds nothing where it is shorter than this share of the latent's longest: the limit below which Minder et
al. call a latent of two models one model's own (relative norm difference above 0.9)."""

WRITTEN = 0.5
"""A block counts as shrunk where the decoder writes less than this share of what the data has there."""

SCALING_ERROR = 0.01
"""Most that the probability of a wrong verdict of one kind may be, for all blocks of one latent together."""

FOLDS = 10
"""Parts of the images that estimates are compared between; their spread is the noise."""

ROUNDING = 1e-12
"""A variance below this share of the sum of squares is 0."""

MAX_SUMS = 1 << 26
"""Numbers in fp64 held at once (512 MiB): the folds' sums of as many latents as fit, the rest in further passes."""

Verdict = Literal["present", "shrunk", "carried", "absent", "unclear"]
VERDICTS: tuple[Verdict, ...] = ("present", "shrunk", "carried", "absent", "unclear")
"""Every verdict, as `Scaling.codes` numbers them."""


@dataclass(frozen=True, eq=False)
class Scaling:
    """What the data holds of each latent in each block, beside what its decoder writes: what `measure_scaling` returns.

    - `beta` fp32 [L, G]: what the block is to be multiplied by to fit the data best. 1: it fits; 1/0.3: it was shrunk
      to 0.3. NaN where the block is zero and where nothing can be said (a dead latent, a single example).
    - `beta_error`: its standard error (jackknife over folds of images).
    - `strength` [L, G]: length of the block that fits best, as a multiple of the latent's longest such.
    - `strength_with_others` [L, G]: the same where what other latents write counts as the data's too, so of all that
      changes in that block with the latent's act, on the scale of `strength`.
    - `codes` int8 [L, G]: which of `VERDICTS` each block has.
    """

    beta: torch.Tensor
    beta_error: torch.Tensor
    strength: torch.Tensor
    strength_with_others: torch.Tensor
    codes: torch.Tensor

    def verdicts(self, latent: int) -> list[Verdict]:
        """The verdict on each block of a latent, in element order."""
        return [VERDICTS[code] for code in self.codes[latent].tolist()]

    def verdict(self, latent: int) -> Verdict:
        """Of all blocks together: "present" if every one is; else the first of shrunk, carried, absent that some block
        is, since at most `SCALING_ERROR` of latents have such a block by chance; else "unclear"."""
        found = self.verdicts(latent)
        if all(verdict == "present" for verdict in found):
            return "present"
        told: tuple[Verdict, ...] = ("shrunk", "carried", "absent")
        return next((verdict for verdict in told if verdict in found), "unclear")

    def columns(self, latent: int) -> dict[str, Any]:
        """What `Atlas.table` says of a latent: its verdict, how many blocks have each, and the median of β."""
        found = self.verdicts(latent)
        beta = float(self.beta[latent].nanmedian())
        counts = {f"blocks_{verdict}": found.count(verdict) for verdict in VERDICTS}
        return {"scaling": self.verdict(latent), **counts, "beta": round(beta, 5) if np.isfinite(beta) else None}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its fields by the names that an atlas saves them under."""
        return {f"scaling_{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Scaling | None:
        """From what `tensors` returned, among others; None where it is not there."""
        if "scaling_codes" not in tensors:
            return None
        return cls(**{name: tensors[f"scaling_{name}"] for name in cls.__dataclass_fields__})


@torch.no_grad()
def measure_scaling(
    crosscoder: GroupCrosscoder, orbits: Any, *, batch_size: int = 1024, progress: bool = False
) -> Scaling:
    """Compares each decoder block with the block that the data asks for, on `orbits` (a store, or a tensor [M, G, D]).

    Latent scaling (Minder et al. 2025, arXiv:2504.02922) looks for a latent's decoder vector of one model in the other:
    β = argmin Σ_n ‖β f(x_n) d − y_n‖², with y the other model's error, then its reconstruction. Here the "models" are
    the |G| blocks of one layer, and a latent's direction differs between them by design: no vector of one block is the
    one to look for in another. So the block itself is fitted, β with it:

        u[l, g] = argmin_u min_c Σ_n ‖f_l(x_n) u + c − y_n‖² = W[l, g] + Cov(f_l, a_g − â_g) / Var(f_l),
        β[l, g] = ⟨W[l, g], u[l, g]⟩ / ‖W[l, g]‖²,   y_n = a_g − â_g + f_l(x_n) W[l, g]: error, with the own part back.

    The constant c, not in the paper, keeps a misfit of b_dec out of it. With y = a_g, the activation, u is what changes
    with the latent's act whoever writes it: that of the error plus that of the others' reconstruction (`strength` and
    `strength_with_others`, in place of the paper's β of error and β of reconstruction). Of a tied crosscoder an example
    is read in each pose h that the base latent is active in: y for block b is that of a_g at gh = b, and c is one for
    each h and g. Of `tied="residual"` W is what the poses share.

    Verdict on a block, with m the largest ‖u[l, g]‖ of the latent's blocks:

    - ‖u‖ < EMPTY·m: "absent", the data has nothing there that is left to write; or "carried", where it has but other
      latents write it (the paper's latent decoupling).
    - ‖u‖ > EMPTY·m: "shrunk" where ⟨W, u⟩ < WRITTEN·‖u‖², the data has more than the decoder writes (the paper's
      shrinkage, complete at W = 0; for a block that is only scaled, β > 1/WRITTEN); else "present".
    - "unclear" where noise allows either, and for latents that fire in fewer than three folds.

    Noise is measured, not assumed: images are dealt out to `FOLDS` folds (all positions of an image to one, as they are
    not independent). ‖u‖² is the mean of ⟨u_s, u_t⟩ over pairs of different folds, weighted by their Var(f), which
    noise does not raise; and each comparison must hold by t standard errors of the jackknife over folds, t the
    1 − SCALING_ERROR/|G| quantile of Student's distribution with as many degrees of freedom as folds the latent fires
    in, less one.

    Fitted one latent at a time, u says what *one* block more would explain: of two latents that fire together both may
    be called shrunk for one lack. A latent whose acts are too small has β > 1 in every block.

    Sums in fp64 of batches summed in fp32: 2·FOLDS·|G|·D numbers a latent, `MAX_SUMS` at once, and as many passes
    (encode, decode, a decoder and its gradients) as that takes. Deterministic on the CPU. ArgumentError for NaN or
    infinite weights or activations.
    """
    if batch_size < 1:
        raise argument_error("batch_size", expected="at least 1", got=batch_size, remedy="Raise it.")
    G, D, L = crosscoder.group.order, crosscoder.config.d_in, crosscoder.config.n_latents
    W_LGD = check_decoder(crosscoder.W_dec, crosscoder.group)
    source = as_orbits(orbits, G, D)
    folds = parts_by_image(source, FOLDS)
    step = max(1, min(L, MAX_SUMS // (2 * max(len(folds), 1) * G * D)))
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        parts = []
        for start in range(0, L, step):
            sums = _Sums(crosscoder, range(start, min(start + step, L)), len(folds))
            origin_GD = source.take(torch.arange(min(256, len(source)))).mean(0).to(W_LGD)
            for fold, acts, latents in _read(crosscoder, source, folds, batch_size, progress):
                sums.add(fold, acts, acts - crosscoder.decode(latents).to(acts.dtype), latents, origin_GD)
            parts.append(sums.judge(W_LGD[start : start + step].double()))
    finally:
        crosscoder.train(was_training)
    return Scaling(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _read(
    crosscoder: GroupCrosscoder, source: Orbits, folds: list[torch.Tensor], batch_size: int, progress: bool
) -> Iterator[tuple[int, torch.Tensor, SparseLatents]]:
    """(fold, acts [N, G, D], latents) of every example, the folds one after the other."""
    device = crosscoder.W_dec.device
    for fold, examples in enumerate(folds):
        for start in batch_starts(len(examples), batch_size, f"scaling, fold {fold + 1} of {len(folds)}", progress):
            acts = source.take(examples[start : start + batch_size]).to(device)
            yield fold, acts, crosscoder.encode(acts)


class _Sums:
    """Sums over examples, by fold, for some of the latents (C of them, in H poses; H = 1 where not tied).

    `products` [2, C, G, S, D]: Σ f·y of the residual and of the centred activations, aligned to the pose. `totals`
    [2, S, G, D]: Σ y. `acts` [S, C, H] and `squares` [S, C]: Σ f and Σ f². `fired` [S, C] and `examples` [S]: how many.
    """

    def __init__(self, crosscoder: GroupCrosscoder, latents: range, folds: int) -> None:
        self.group, self.latents = crosscoder.group, latents
        self.W_CGD = crosscoder.W_dec[latents.start : latents.stop]
        self.tied = bool(crosscoder.config.tied)
        G, D, C = self.group.order, crosscoder.config.d_in, len(latents)
        H = G if self.tied else 1
        zeros = partial(torch.zeros, dtype=torch.float64, device=crosscoder.W_dec.device)
        self.products = zeros((2, C, G, folds, D))
        self.totals = zeros((2, folds, G, D))
        self.acts = zeros((folds, C, H))
        self.squares = zeros((folds, C))
        self.fired = zeros((folds, C))
        self.examples = zeros((folds,))

    def add(
        self, fold: int, acts: torch.Tensor, residual: torch.Tensor, latents: SparseLatents, origin_GD: torch.Tensor
    ) -> None:
        """One batch of one fold."""
        centred = acts - origin_GD.to(acts)
        ours = of_latents(latents, self.latents)
        for target, sums, totals in zip((residual, centred), self.products, self.totals, strict=True):
            totals[fold] += target.sum(0, dtype=torch.float64)
            sums[:, :, fold] += latent_products(ours, target, self.W_CGD, self.group)
        H = self.acts.shape[2]
        place = ours.indices * H if ours.poses is None else ours.indices * H + ours.poses
        f = ours.acts.double()
        self.acts[fold].view(-1).index_add_(0, place.flatten(), f.flatten())
        self.squares[fold].index_add_(0, ours.indices.flatten(), f.square().flatten())
        self.fired[fold].index_add_(0, ours.indices.flatten(), (f > 0).double().flatten())
        self.examples[fold] += len(acts)

    def judge(self, W_CGD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The fields of `Scaling` of these latents, in order."""
        G = self.group.order
        identity = torch.arange(G, device=W_CGD.device)[None]
        # Block b of a latent in pose h stands at g with gh = b.
        stands_at = translation_table(self.group, W_CGD.device).argsort(1) if self.tied else identity
        examples = self.examples.sum()
        mean_f = self.acts.sum(0) / examples  # [C, H]
        mean_y = self.totals.sum(1) / examples  # [2, G, D]
        for fold, n in enumerate(self.examples):
            left_f = self.acts[fold] - n * mean_f
            for i in range(2):
                for h, at in enumerate(stands_at):
                    self.products[i, :, :, fold] -= mean_f[:, h, None, None] * self.totals[i, fold, at]
                    self.products[i, :, :, fold] -= left_f[:, h, None, None] * mean_y[i, at]
        variation_CS = (
            self.squares - 2 * (self.acts * mean_f).sum(2) + self.examples[:, None] * mean_f.square().sum(1)
        ).mT
        # What rounding leaves of an act that never varies is no variation, and nothing follows from it.
        varies = variation_CS.sum(1) > ROUNDING * self.squares.sum(0)
        variation_CS[~varies] = torch.nan
        own, everything = self.products
        own += variation_CS[:, None, :, None] * W_CGD[:, :, None]
        v = variation_CS[:, None]
        power, power_left = _squared_length(own, v)
        power_all, power_all_left = _squared_length(everything, v)
        along = torch.einsum("cgsd,cgd->cgs", own, W_CGD)
        fit, fit_left = along.sum(2) / v.sum(2), (along.sum(2, keepdim=True) - along) / (v.sum(2, keepdim=True) - v)

        longest = power.amax(1, keepdim=True)
        limit = EMPTY**2 * longest
        t = _student_t(1 - SCALING_ERROR / G, (self.fired > 0).sum(0).cpu().numpy() - 1)
        t_C1 = torch.from_numpy(t).to(W_CGD)[:, None]
        slack = t_C1 * _jackknife(power_left)
        lack = WRITTEN * power - fit
        lack_slack = t_C1 * _jackknife(WRITTEN * power_left - fit_left)
        # Without a block that is surely there is no scale for the others.
        scaled = (longest > slack.gather(1, power.argmax(1, keepdim=True))).expand_as(power)
        there, empty = scaled & (power - slack > limit), scaled & (power + slack < limit)
        others = power_all - t_C1 * _jackknife(power_all_left) > limit
        codes = torch.full_like(power, VERDICTS.index("unclear"), dtype=torch.int8)
        verdicts: dict[Verdict, torch.Tensor] = {
            "present": there & (lack + lack_slack < 0),
            "shrunk": there & (lack - lack_slack > 0),
            "carried": empty & others,
            "absent": empty & ~others,
        }
        for verdict, where in verdicts.items():
            codes[where] = VERDICTS.index(verdict)
        square = W_CGD.square().sum(2)
        undefined = torch.where(square > 0, square, torch.nan)
        scale = longest.clamp_min(0.0).sqrt()
        lengths = [torch.nan_to_num(p.clamp_min(0.0).sqrt() / scale) for p in (power, power_all)]
        beta, error = fit / undefined, _jackknife(fit_left) / undefined
        return (*(x.float() for x in (beta, error, *lengths)), codes)


def _squared_length(sums_CGSD: torch.Tensor, v_C1S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """‖u‖² from pairs of different folds, Σ_{s≠t} ⟨B_s, B_t⟩ / Σ_{s≠t} v_s v_t [C, G]; without each fold [C, G, S].

    B_s = v_s u + noise, and the noise of different folds is independent: the mean is right whatever its size.
    """
    total = sums_CGSD.sum(2)
    with_all = torch.einsum("cgsd,cgd->cgs", sums_CGSD, total)
    own = torch.linalg.vector_norm(sums_CGSD, dim=3).square()
    pairs, weight = with_all - own, v_C1S * (v_C1S.sum(2, keepdim=True) - v_C1S)
    sum_pairs, sum_weight = pairs.sum(2, keepdim=True), weight.sum(2, keepdim=True)
    return (sum_pairs / sum_weight)[..., 0], (sum_pairs - 2 * pairs) / (sum_weight - 2 * weight)


def _jackknife(left_out: torch.Tensor) -> torch.Tensor:
    """Standard error from the estimates without each fold, [..., S] → [...] (Efron and Stein 1981)."""
    S = left_out.shape[-1]
    return ((S - 1) / S * (left_out - left_out.mean(-1, keepdim=True)).square().sum(-1)).sqrt()


def _student_t(probability: float, freedom: np.ndarray) -> np.ndarray:
    """Quantiles of Student's distribution; NaN, which no comparison passes, below two degrees of freedom.

    With t = √ν tan θ its density is proportional to cos^(ν−1) θ: integrated by the trapezoid rule from π/2 down.
    """
    theta = np.linspace(np.pi / 2, 0.0, 100_001)
    found = np.full(freedom.shape, np.nan)
    for nu in np.unique(freedom[freedom >= 2]):
        density = np.cos(theta) ** (nu - 1.0)
        tail = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        found[freedom == nu] = np.sqrt(nu) * np.tan(np.interp(1 - probability, 0.5 * tail / tail[-1], theta))
    return found
