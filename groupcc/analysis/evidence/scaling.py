"""Latent scaling: whether a decoder block is empty because the data has nothing there, or because it was shrunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from groupcc.analysis.evidence.latent_products import latent_products, of_latents
from groupcc.analysis.options import Options
from groupcc.analysis.part import Note, Part
from groupcc.analysis.symmetry.blocks import check_decoder
from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import parts_by_image
from groupcc.errors import argument_error
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder, SparseLatents
from groupcc.models.metrics import batch_starts

__all__ = ["EMPTY", "FOLDS", "SCALING_ERROR", "VERDICTS", "WRITTEN", "Scaling", "Verdict", "measure_scaling"]

EMPTY = 0.2
"""A block holds nothing if it is shorter than this share of the latent's longest block. It is the limit below which
Minder et al. call a latent of two models one model's own (relative norm difference above 0.9)."""

WRITTEN = 0.5
"""A block counts as shrunk if the decoder writes less than this share of what the data has there."""

SCALING_ERROR = 0.01
"""Largest probability of a wrong verdict of one kind, for all blocks of one latent together."""

FOLDS = 10
"""Parts of the images. The spread of estimates between them is the noise."""

ROUNDING = 1e-12
"""A variance below this share of the sum of squares is 0."""

MAX_SUMS = 1 << 26
"""Numbers held at once, in fp64 (512 MiB). The sums of more latents take further passes over the data."""

Verdict = Literal["present", "shrunk", "carried", "absent", "unclear"]
VERDICTS: tuple[Verdict, ...] = ("present", "shrunk", "carried", "absent", "unclear")
"""Every verdict, as `Scaling.codes` numbers them."""


@dataclass(frozen=True, eq=False)
class Scaling(Part):
    """What the data holds of each latent in each block, beside what its decoder writes: what `measure_scaling` returns.

    - `beta` fp32 [L, G]: the factor by which the block would fit the data best. 1: it fits; 1/0.3: it was shrunk to
      0.3. NaN if the block is zero, and if nothing can be said (a dead latent, a single example).
    - `beta_error`: its standard error (jackknife over folds of images).
    - `strength` [L, G]: length of the block that fits best, as a multiple of the latent's longest such block.
    - `strength_with_others` [L, G]: the same for all that changes in that block with the latent's act, by whichever
      latent it is written, on the scale of `strength`.
    - `codes` int8 [L, G]: which of `VERDICTS` each block has.

    Verdicts, with u the block that fits best and m the largest ‖u[l, g]‖ of the latent's blocks:

    - ‖u‖ < EMPTY·m: "absent", the data has nothing there that is left to write; or "carried", the data has something
      there and other latents write it (the paper's latent decoupling).
    - ‖u‖ > EMPTY·m: "shrunk" if ⟨W, u⟩ < WRITTEN·‖u‖², the data has more than the decoder writes (the paper's
      shrinkage, complete at W = 0; for a block that is only scaled, β > 1/WRITTEN); else "present".
    - "unclear": noise allows either, or the latent fires in fewer than three folds.
    """

    beta: torch.Tensor
    beta_error: torch.Tensor
    strength: torch.Tensor
    strength_with_others: torch.Tensor
    codes: torch.Tensor

    def verdicts(self, latent: int) -> list[Verdict]:
        """Returns the verdict on each block of a latent, in element order."""
        return [VERDICTS[code] for code in self.codes[latent].tolist()]

    def verdict(self, latent: int) -> Verdict:
        """Returns the verdict on all blocks together: "present" if every block is, else the first of shrunk, carried,
        absent that some block is, else "unclear". At most `SCALING_ERROR` of latents have such a block by chance."""
        blocks = self.verdicts(latent)
        if all(verdict == "present" for verdict in blocks):
            return "present"
        faults: tuple[Verdict, ...] = ("shrunk", "carried", "absent")
        return next((verdict for verdict in faults if verdict in blocks), "unclear")

    @classmethod
    def measure(cls, crosscoder: GroupCrosscoder, orbits: Orbits, options: Options) -> Scaling:
        return measure_scaling(crosscoder, orbits, batch_size=options.batch_size, progress=options.progress)

    def columns(self, latent: int) -> dict[str, Any]:
        blocks = self.verdicts(latent)
        beta = float(self.beta[latent].nanmedian())
        counts = {f"blocks_{verdict}": blocks.count(verdict) for verdict in VERDICTS}
        return {"scaling": self.verdict(latent), **counts, "beta": round(beta, 5) if np.isfinite(beta) else None}

    def notes(self, latent: int) -> list[Note]:
        blocks = self.verdicts(latent)
        n, present = len(blocks), blocks.count("present")
        if present == n:
            which = "its only block" if n == 1 else f"all its {n} blocks"
            return [Note("data", f"The data agrees with {which}.")]
        others = " as other latents write what is there"
        verbs: dict[Verdict, tuple[str, str]] = {
            "shrunk": ("is weaker than in the data", "are weaker than in the data"),
            "carried": (f"is empty{others}", f"are empty{others}"),
            "absent": ("has nothing in the data", "have nothing in the data"),
            "unclear": ("is too noisy to judge", "are too noisy to judge"),
        }
        counts = {verdict: blocks.count(verdict) for verdict in VERDICTS}
        faults = [
            f"{counts[verdict]} {words[counts[verdict] > 1]}" for verdict, words in verbs.items() if counts[verdict]
        ]
        return [Note("data", f"The data agrees with {present} of its {n} blocks; {', '.join(faults)}.")]

    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"scaling_{name}": getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Scaling | None:
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
    the |G| blocks of one layer, and a latent's direction differs between them by design. So no block's vector can be
    looked for in another block; the block itself is fitted, and β with it:

        u[l, g] = argmin_u min_c Σ_n ‖f_l(x_n) u + c − y_n‖² = W[l, g] + Cov(f_l, a_g − â_g) / Var(f_l),
        β[l, g] = ⟨W[l, g], u[l, g]⟩ / ‖W[l, g]‖²,   y_n = a_g − â_g + f_l(x_n) W[l, g]: error, with the own part back.

    The constant c, not in the paper, keeps a misfit of b_dec out of u. With y = a_g, the activation, u is what changes
    with the latent's act whichever latent writes it: what the error has and what the others' reconstruction has
    (`strength` and `strength_with_others`, in place of the paper's β of error and β of reconstruction). If latents have
    poses, an example is read in each pose h in which the latent is active: y for block b is that of a_g at gh = b, and
    c is one for each h and g; W is what the poses share. Verdicts: see `Scaling`.

    Noise is measured, not assumed. Photographs are dealt out to `FOLDS` folds, each whole to one. ‖u‖² is the
    mean of ⟨u_s, u_t⟩ over pairs of different folds, weighted by their Var(f), which noise does not raise. Each
    comparison must hold by t standard errors of the jackknife over folds; t is the 1 − SCALING_ERROR/|G| quantile of
    Student's distribution, with one degree of freedom fewer than the folds in which the latent fires.

    As one latent is fitted at a time, u says what *one* block more would explain: of two latents that fire together
    both may be called shrunk for one lack. A latent with acts that are too small has β > 1 in every block.

    Sums in fp64 of batches summed in fp32: 2·FOLDS·|G|·D numbers a latent, `MAX_SUMS` at once, and as many passes
    (encode, decode, a decoder and its gradients) as that takes. Deterministic on the CPU.

    Raises:
        ArgumentError: NaN or infinite weights or activations.
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
    """Yields (fold, acts [N, G, D], latents) of every example, fold after fold."""
    device = crosscoder.W_dec.device
    for fold, examples in enumerate(folds):
        for start in batch_starts(len(examples), batch_size, f"scaling, fold {fold + 1} of {len(folds)}", progress):
            acts = source.take(examples[start : start + batch_size]).to(device)
            yield fold, acts, crosscoder.encode(acts)


class _Sums:
    """Sums over examples, by fold, for C of the latents in H poses (H = 1 if latents have none).

    `products` [2, C, G, S, D]: Σ f·y of the residual and of the centred activations, aligned to the pose. `totals`
    [2, S, G, D]: Σ y. `acts` [S, C, H] and `squares` [S, C]: Σ f and Σ f². `fired` [S, C]: firings. `examples` [S].
    """

    def __init__(self, crosscoder: GroupCrosscoder, latents: range, folds: int) -> None:
        self.group, self.latents = crosscoder.group, latents
        self.W_CGD = crosscoder.W_dec[latents.start : latents.stop]
        G, D, C, H = self.group.order, crosscoder.config.d_in, len(latents), crosscoder.n_poses
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
        """Returns the fields of `Scaling` of these latents, in order."""
        G = self.group.order
        variation_CS = self._centre_()
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
        full, empty = scaled & (power - slack > limit), scaled & (power + slack < limit)
        others = power_all - t_C1 * _jackknife(power_all_left) > limit
        codes = torch.full_like(power, VERDICTS.index("unclear"), dtype=torch.int8)
        verdicts: dict[Verdict, torch.Tensor] = {
            "present": full & (lack + lack_slack < 0),
            "shrunk": full & (lack - lack_slack > 0),
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

    def _centre_(self) -> torch.Tensor:
        """Makes `products` those of f − f̄ and y − ȳ. Returns Σ (f − f̄)² [C, S]; NaN for acts that never vary."""
        # Block b of a latent in pose h stands at g with gh = b. Without poses h is the identity alone.
        stands_at = translation_table(self.group, self.acts.device).argsort(1)[: self.acts.shape[2]]
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
        return variation_CS


def _squared_length(sums_CGSD: torch.Tensor, v_C1S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ‖u‖² from pairs of different folds, Σ_{s≠t} ⟨B_s, B_t⟩ / Σ_{s≠t} v_s v_t [C, G]; and without each fold
    [C, G, S].

    B_s = v_s u + noise, and the noise of different folds is independent: the mean is right whatever the noise's size.
    """
    total = sums_CGSD.sum(2)
    with_all = torch.einsum("cgsd,cgd->cgs", sums_CGSD, total)
    own = torch.linalg.vector_norm(sums_CGSD, dim=3).square()
    pairs, weight = with_all - own, v_C1S * (v_C1S.sum(2, keepdim=True) - v_C1S)
    sum_pairs, sum_weight = pairs.sum(2, keepdim=True), weight.sum(2, keepdim=True)
    return (sum_pairs / sum_weight)[..., 0], (sum_pairs - 2 * pairs) / (sum_weight - 2 * weight)


def _jackknife(left_out: torch.Tensor) -> torch.Tensor:
    """Returns the standard error from the estimates without each fold, [..., S] → [...] (Efron and Stein 1981)."""
    S = left_out.shape[-1]
    return ((S - 1) / S * (left_out - left_out.mean(-1, keepdim=True)).square().sum(-1)).sqrt()


def _student_t(probability: float, freedom: np.ndarray) -> np.ndarray:
    """Returns quantiles of Student's distribution; NaN, which no comparison passes, below two degrees of freedom.

    With t = √ν tan θ its density is proportional to cos^(ν−1) θ: integrated by the trapezoid rule from π/2 down.
    """
    theta = np.linspace(np.pi / 2, 0.0, 100_001)
    quantiles = np.full(freedom.shape, np.nan)
    for nu in np.unique(freedom[freedom >= 2]):
        density = np.cos(theta) ** (nu - 1.0)
        tail = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
        quantiles[freedom == nu] = np.sqrt(nu) * np.tan(np.interp(1 - probability, 0.5 * tail / tail[-1], theta))
    return quantiles
