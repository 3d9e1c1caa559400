"""Decoder blocks estimated anew from data, and how they vary between resamples of the photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from groupcc.analysis.evidence.latent_products import latent_products, of_latents
from groupcc.analysis.symmetry.broken import SUPPORT
from groupcc.analysis.symmetry.stabilizers import subgroup_types, type_scores
from groupcc.analysis.symmetry.too_few import mirror_hidden
from groupcc.data import Orbits
from groupcc.data.splits import parts_by_image
from groupcc.groups import PlanarGroup, as_planar
from groupcc.groups.autocorrelation import MAX_BLOCK_NUMBERS, translated_sums
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder, SparseLatents
from groupcc.models.metrics import batch_starts

__all__ = ["PARTS_OF_DATA", "REPLICATES", "DataSums", "measure_data"]

PARTS_OF_DATA = 10
"""Parts into which the photographs are dealt out, to be resampled."""

FEWEST_PARTS = 5
"""Parts in which a latent must fire to be told from noise."""

REPLICATES = 100
"""Resamples. A stability is a share of them."""

MAX_TEMPLATES = 1 << 28
"""Numbers of templates held at once, in fp32 (1 GiB). More latents take further passes over the data."""

SEEN = 3.0
"""The squared length of a latent's template must be above 0 by this many standard errors."""


@dataclass(frozen=True, eq=False)
class DataSums:
    """What `measure_data` returns: sums over pairs of parts of the photographs.

    - `products`, `powers` float64 [S, L, G]: for each part s Σ_g ⟨u_s[g], u_t[gh]⟩ and
      ½Σ_g (⟨u_s[g], u_t[g]⟩ + ⟨u_s[gh], u_t[gh]⟩), u_t the template from all other parts.
    - `weights` float64 [S, L]: v_s·Σ_{t≠s} v_t, so that Σ_s powers / Σ_s weights is the template's squared length.
    - `parts` int64 [L]: the number of parts in which a latent fires.
    """

    group: PlanarGroup
    products: torch.Tensor
    powers: torch.Tensor
    weights: torch.Tensor
    parts: torch.Tensor

    @property
    def seen(self) -> torch.Tensor:
        """Latents of which the data say something, bool [L]: they fire in `FEWEST_PARTS`, and not at random."""
        power, weight = self.powers[:, :, 0], self.weights
        left = (power.sum(0) - 2 * power) / (weight.sum(0) - 2 * weight)  # squared length without each part
        S = len(left)
        error = ((S - 1) / S * (left - left.mean(0)).square().sum(0)).sqrt()
        return (self.parts >= FEWEST_PARTS) & (power.sum(0) / weight.sum(0) > SEEN * error)

    def autocorrelation(self, weights_S: torch.Tensor | None = None) -> torch.Tensor:
        """Returns C of the templates, [L, G] in [−1, 1], the parts weighted; 0 if nothing is known.

        Noise would lower the C of one template. It does not lower this one, since only different parts are multiplied.
        """
        if weights_S is None:
            weights_S = torch.ones(len(self.products))
        products, powers = (torch.einsum("s,slg->lg", weights_S.double(), x) for x in (self.products, self.powers))
        known = powers > SUPPORT * powers[:, :1].clamp_min(0.0)
        return torch.where(known, products / torch.where(known, powers, 1.0), 0.0).clamp(-1.0, 1.0)

    def shares(self, bounds: tuple[float, float], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the share of `REPLICATES` resamples of the parts that give each type of subgroup, fp32 [L, types],
        and how many latents have each type in each resample, int64 [`REPLICATES`, types].

        Each resample draws a tolerance between the bounds, and the parts by bootstrap: of S draws part s is drawn m_s
        times. C, a ratio of sums over pairs of parts, is taken to first order in m: each part's sums count 2·m_s − 1
        times. Example: a part that is drawn 0, 1, 2 times counts −1, 1, 3 times. NaN for latents that are not `seen`.
        Deterministic in `seed`.
        """
        S, L = self.products.shape[:2]
        seen = self.seen
        products, powers, weights = (x[:, seen] for x in (self.products, self.powers, self.weights))
        own = DataSums(self.group, products, powers, weights, self.parts[seen])
        counts = torch.zeros(int(seen.sum()), len(subgroup_types(self.group)))
        every = torch.arange(len(counts))
        generator = torch.Generator().manual_seed(seed)
        of_types = torch.zeros(REPLICATES, counts.shape[1], dtype=torch.int64)
        for replicate in range(REPLICATES):
            drawn = torch.randint(S, (S,), generator=generator).bincount(minlength=S)
            tolerance = bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand((), generator=generator))
            C_LG = own.autocorrelation(2.0 * drawn - 1.0)
            types = type_scores(C_LG, self.group)
            best = types.best(tolerance)
            told = ~mirror_hidden(C_LG, types, best, self.group, tolerance)
            counts[every, torch.from_numpy(best)] += told.float()
            of_types[replicate] = torch.from_numpy(best)[told].bincount(minlength=counts.shape[1])
        shares = torch.full((L, counts.shape[1]), torch.nan)
        shares[seen] = counts / REPLICATES
        return shares, of_types


@torch.no_grad()
def measure_data(
    crosscoder: GroupCrosscoder,
    source: Orbits,
    W_LGD: torch.Tensor,
    present_LG: torch.Tensor,
    *,
    examples: int,
    batch_size: int,
    progress: bool = False,
) -> DataSums:
    """Estimates the templates of all latents from up to `examples` orbits, spread evenly over `source`.

    A latent's template is the decoder that the data ask for (`measure_scaling`),
    u[l, g] = W[l, g] + Cov(f_l, a_g − â_g) / Var(f_l): what changes with its act, and no other latent explains. Blocks
    not in `present_LG` are left out. Photographs are dealt out to S = `PARTS_OF_DATA` parts: u = Σ_s U_s / Σ_s v_s,
    with U_s = Σ_n (f − f̄)(residual − r̄) + v_s W and v_s = Σ_n (f − f̄)² over part s. Only the products of a part's
    template with that of the other parts are kept: 2·S·|G| numbers a latent.

    Reads the data three times (once to encode). Holds [L, G, D] once, at most `MAX_TEMPLATES` numbers, and chunks of
    it. Sums of a part in fp32. Deterministic on the CPU. The crosscoder's mode is restored.
    """
    chosen = torch.arange(len(source))
    if len(source) > examples:
        chosen = torch.linspace(0, len(source) - 1, examples, dtype=torch.float64).long()
    parts = parts_by_image(source, PARTS_OF_DATA, chosen)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        return _Templates(crosscoder, source, W_LGD, present_LG).measure(parts, batch_size, progress)
    finally:
        crosscoder.train(was_training)


class _Templates:
    """Sums by part: `acts` [S, L, H] Σ f, `squares` [S, L] Σ f², `residuals` [S, G, D] Σ (a − â), `examples` [S]."""

    def __init__(
        self, crosscoder: GroupCrosscoder, source: Orbits, W_LGD: torch.Tensor, present_LG: torch.Tensor
    ) -> None:
        self.crosscoder, self.source, self.W_LGD = crosscoder, source, W_LGD
        self.group, self.device = as_planar(crosscoder.group, "analysis"), W_LGD.device
        self.present_LG = present_LG.to(self.device)
        self.H, G = crosscoder.n_poses, self.group.order
        # Block b of a latent in pose h stands at g with gh = b.
        self.stands_at = translation_table(self.group, self.device).argsort(1)[: self.H]
        self.cayley = torch.tensor(self.group.cayley, device=self.device)  # [g, h] -> gh
        self.inverse = torch.tensor(self.group.inverse, device=self.device)
        self.step = max(1, min(len(W_LGD), 2 * MAX_BLOCK_NUMBERS // (G * max(G, W_LGD.shape[2]))))
        self.batches: list[list[tuple[torch.Tensor, SparseLatents]]] = []

    def measure(self, parts: list[torch.Tensor], batch_size: int, progress: bool) -> DataSums:
        S, (L, G, D) = len(parts), self.W_LGD.shape
        fired = self._encode(parts, batch_size, progress)
        products, powers = self._zeros((S, L, G)), self._zeros((S, L, G))
        width = max(1, MAX_TEMPLATES // (G * D))
        for first in range(0, L, width):
            wanted = range(first, min(first + width, L))
            template = torch.zeros(len(wanted), G, D, device=self.device)
            for s in range(S):
                for at, U in self._of_part(s, wanted):
                    template[at.start - first : at.stop - first] += U
            for s in range(S):
                for at, U in self._of_part(s, wanted):
                    rest = template[at.start - first : at.stop - first] - U
                    products[s, at], powers[s, at] = self._compare(U, rest, self.present_LG[at])
        weights = self.variation * (self.variation.sum(0) - self.variation)
        return DataSums(self.group, products.cpu(), powers.cpu(), weights.cpu(), fired.sum(0).cpu())

    def _zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def _encode(self, parts: list[torch.Tensor], batch_size: int, progress: bool) -> torch.Tensor:
        """Sums over every part, its latents kept. Returns which latents fire in each, bool [S, L]."""
        S, (L, G, D) = len(parts), self.W_LGD.shape
        self.acts, self.squares = self._zeros((S, L, self.H)), self._zeros((S, L))
        self.residuals = self._zeros((S, G, D))
        self.examples = torch.tensor([len(part) for part in parts], dtype=torch.float64, device=self.device)
        fired = torch.zeros(S, L, dtype=torch.bool, device=self.device)
        for s, examples in enumerate(parts):
            self.batches.append([])
            for start in batch_starts(len(examples), batch_size, f"evidence, part {s + 1} of {S}", progress):
                some = examples[start : start + batch_size]
                acts = self._take(some)
                latents = self.crosscoder.encode(acts)
                self.batches[s].append((some, latents))
                self._count(s, latents, fired[s])
                self.residuals[s] += (acts - self.crosscoder.decode(latents)).sum(0, dtype=torch.float64)
        self.mean_f = self.acts.sum(0) / self.examples.sum()  # [L, H]
        self.mean_r = self.residuals.sum(0) / self.examples.sum()
        variation = self.squares - 2 * (self.acts * self.mean_f).sum(2)
        self.variation = variation + self.examples[:, None] * self.mean_f.square().sum(1)
        return fired

    def _take(self, examples: torch.Tensor) -> torch.Tensor:
        return self.source.take(examples).to(self.device)

    def _count(self, s: int, latents: SparseLatents, fired_L: torch.Tensor) -> None:
        f, which = latents.acts.double().flatten(), latents.indices.flatten()
        place = which if latents.poses is None else which * self.H + latents.poses.flatten()
        self.acts[s].view(-1).index_add_(0, place, f)
        self.squares[s].index_add_(0, which, f.square())
        fired_L[which[f > 0]] = True

    def _of_part(self, s: int, wanted: range) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yields U_s of the wanted latents, [C, G, D], some at a time."""
        residuals = []
        for examples, latents in self.batches[s]:
            acts = self._take(examples)
            residuals.append(acts - self.crosscoder.decode(latents).to(acts.dtype))
        # Aligned to each pose, [2·H, G·D].
        means = torch.cat([self.residuals[s][self.stands_at], self.mean_r[self.stands_at]]).flatten(1).float()
        for start in range(wanted.start, wanted.stop, self.step):
            some = range(start, min(start + self.step, wanted.stop))
            at = slice(some.start, some.stop)
            U = torch.zeros_like(self.W_LGD[at], dtype=torch.float32)
            for residual, (_, latents) in zip(residuals, self.batches[s], strict=True):
                U += latent_products(of_latents(latents, some), residual, self.W_LGD[at], self.group)
            U.addcmul_(self.W_LGD[at], self.variation[s, at, None, None].float())
            left = self.acts[s, at] - self.examples[s] * self.mean_f[at]
            U.flatten(1).addmm_(torch.cat([self.mean_f[at], left], 1).float(), means, alpha=-1)
            yield at, U

    def _compare(
        self, U_CGD: torch.Tensor, rest_CGD: torch.Tensor, present_CG: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns `products` and `powers` of one part, [C, G] each."""
        gram = (U_CGD @ rest_CGD.mT).double()
        gram *= present_CG[:, :, None] & present_CG[:, None]
        products = translated_sums(gram, self.group)
        square = gram.diagonal(dim1=1, dim2=2)
        powers = square.sum(1, keepdim=True).repeat(1, square.shape[1])
        some = (~present_CG).any(1)
        both = present_CG[some][:, self.cayley] & present_CG[some][:, :, None]  # [c, g, h]
        powers[some] = (0.5 * (square[some][:, self.cayley] + square[some][:, :, None]) * both).sum(1)
        return 0.5 * (products + products[:, self.inverse]), powers
