"""known_bank: a net with nothing to train whose channels' symmetries are known, for scoring from image to label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupcc.errors import argument_error, is_whole
from groupcc.groups import Group, PlanarGroup, PlanarSubgroup, as_planar
from groupcc.groups import group as make_group
from groupcc.groups.translate import translate
from groupcc.zoo.planted import PlantedDictionary
from groupcc.zoo.planted_drawing import coset_heads
from groupcc.zoo.shapes import SHAPES, kernel, offsets, stabilizer, window

__all__ = ["BankTruth", "Filters", "KnownBank", "known_bank"]

STRIDE = 2
CONTRAST_FLOOR = 0.02
"""A contrast well below this is taken for noise, and the response goes to 0. From black to white is 1."""

RIVALRY = 0.8
"""A filter fires where its response exceeds this share of the strongest one there, over shapes and poses."""


@dataclass(frozen=True, eq=False)
class BankTruth(PlantedDictionary):
    """What a crosscoder should find: every atom of a `KnownBank`, as a `PlantedDictionary`.

    Let φ_(f,h) be filter h of shape f and m_(f,h) its column in the mixing matrix. A filter at h sees T_g x as the one
    at g⁻¹h sees x, so the orbit of an image is

        a_g = Σ_(f,h) φ_(f,h)(T_g x)·m_(f,h) = Σ_(f,h) φ_(f,g⁻¹h)(x)·m_(f,h) = Σ_(f,h) φ_(f,h)(x)·m_(f,gh).

    So filter (f,h) writes the atom (d_(f,h))_g = m_(f,gh), which is R_h d_(f,e). The atom's stabilizer is h H_f h⁻¹,
    with H_f the stabilizer of the shape. All atoms of a shape are one family.

    - `kinds`: the names of the shapes; `kinds[atom_base[a]]` is that of atom a.
    - Atom a is what channel a of `filters` writes. Atoms have norm 1; the columns too, so an act is √|G| times φ.
    """

    kinds: tuple[str, ...]


class Filters(nn.Module):
    """Filters of shapes at every element of a group, one channel for each distinct one: [B, 3, H, W] → [B, A, H', W'].

    With the plane x that a shape looks at (grey: mean of R, G, B; opponent: R − B), r = ⟨w, x⟩ / √(c² + floor²) is the
    response over the local contrast, c² = Σ_p v(p)·x(p)² − (Σ_p v(p)·x(p))² under the window v, so |r| ≤ 1. Then, with
    the scale s_f of shape f,

        z_(f,h) = r_(f,h) / s_f,    φ_(f,h) = blur(ReLU(z_(f,h) − max(1, RIVALRY · max_(k,l) z_(k,l)))).

    Every turn but multiples of 90° reads a map of stride 2 between its pixels. The blur (1/4, 1/2, 1/4 along both axes;
    Zhang 2019) takes out most of the error of that. All poses are treated alike, so φ_(f,h)(T_g x) = φ_(f,g⁻¹h)(x) up
    to the sampling of pixels. The scales give every shape a tenth of the power of φ over the bundled photographs.

    Stride 2, offset 0: index u is centred on input pixel 2u. Zero padding, so that the map covers the input.
    """

    grey: Tensor
    opponent: Tensor
    window: Tensor
    order: Tensor
    scale: Tensor
    blur: Tensor

    def __init__(self, grey: Tensor, opponent: Tensor, order: Tensor, scale: Tensor) -> None:
        super().__init__()
        size = grey.shape[-1]
        v = window(offsets(size))
        self.register_buffer("grey", grey.float())
        self.register_buffer("opponent", opponent.float())
        self.register_buffer("window", torch.from_numpy(v / v.sum()).float()[None, None])
        self.register_buffer("order", order)
        self.register_buffer("scale", scale.float()[:, None, None])
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("blur", (taps[:, None] * taps)[None, None])

    def responses(self, x: Tensor) -> Tensor:
        """r, before threshold and rivalry: [B, A, H', W'] in [−1, 1]."""
        pad = self.window.shape[-1] // 2

        def correlate(plane: Tensor, kernels: Tensor) -> Tensor:
            return F.conv2d(plane, kernels, stride=STRIDE, padding=pad)

        both = []
        for plane, kernels in ((x.mean(1, keepdim=True), self.grey), (x[:, :1] - x[:, 2:], self.opponent)):
            if not len(kernels):
                continue
            power = correlate(plane.square(), self.window) - correlate(plane, self.window).square()
            both.append(correlate(plane, kernels) / (power.clamp_min(0) + CONTRAST_FLOOR**2).sqrt())
        return torch.cat(both, dim=1)[:, self.order]

    def forward(self, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim != 4 or x.shape[1] != 3:
            raise argument_error(
                "x",
                expected="float RGB in [0, 1], [B, 3, H, W]",
                got=f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__,
                remedy="Divide uint8 pixels by 255; repeat grey images three times.",
            )
        z = self.responses(x) / self.scale
        fired = (z - (RIVALRY * z.amax(1, keepdim=True)).clamp_min(1)).relu()
        return F.conv2d(fired, self.blur.expand(len(self.scale), -1, -1, -1), padding=1, groups=len(self.scale))


class KnownBank(nn.Module):
    """Photographs → `filters` → `mix`, a fixed random matrix into fewer channels: [B, 3, H, W] → [B, D, H', W'].

    Harvest the layer `"mix"`. `truth` says what is to be found there; None for a control. Made by `known_bank`.
    """

    def __init__(self, filters: Filters, columns_AD: Tensor, truth: BankTruth | None) -> None:
        super().__init__()
        self.filters = filters
        atoms, d_in = columns_AD.shape
        # An ordinary initialisation would draw from the caller's random numbers.
        self.mix = nn.utils.skip_init(nn.Conv2d, atoms, d_in, 1, bias=False)
        self.mix.weight.data = columns_AD.T[:, :, None, None].clone()
        self.truth = truth
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.filters(x))


def known_bank(
    group: str | Group = "D16",
    kinds: Sequence[str] | None = None,
    size: int = 25,
    superposition: float = 1.5,
    seed: int = 0,
    *,
    control: bool = False,
) -> KnownBank:
    """A net whose channels are random mixtures of filters with known symmetry. Nothing in it is trained.

    - `group`: every shape has one filter for each coset hH of its stabilizer, the formula turned by h.
    - `kinds`: keys of `groupcc.zoo.shapes.SHAPES`; None takes all ten.
    - `size`: side of the kernels in pixels, odd.
    - `superposition`: filters for each channel of the mixture, D = A / superposition. Columns of the mixing matrix are
      independent Gaussians scaled to norm 1.
    - `seed`: of the mixing matrix (and the control's kernels).
    - `control`: the same net, but every filter is smoothed noise of its own, so no channel is another's transform and
      nothing in it has a symmetry; `truth` is None.

    On the CPU, float32. Deterministic in the arguments.

    Raises:
        ArgumentError: unknown, repeated or no kinds; a size that is even or too small; no channel left.
    """
    G = as_planar(make_group(group), "a bank of filters")
    names = tuple(SHAPES) if kinds is None else tuple(kinds)
    if not names or len(set(names)) != len(names) or not set(names) <= set(SHAPES):
        raise argument_error(
            "kinds", expected=f"different ones of {', '.join(SHAPES)}", got=list(names), remedy="None takes them all."
        )
    if not is_whole(seed, 0):
        raise argument_error("seed", expected="a whole number >= 0", got=seed, remedy="0 is the default.")
    shapes = [SHAPES[name] for name in names]
    subgroups = [stabilizer(shape, G) for shape in shapes]
    heads = [coset_heads(G, subgroup) for subgroup in subgroups]
    atom_base = torch.arange(len(shapes)).repeat_interleave(torch.tensor([len(h) for h in heads]))
    atom_pose = torch.tensor([h for poses in heads for h in poses])
    atoms = len(atom_base)
    is_number = isinstance(superposition, (int, float)) and not isinstance(superposition, bool)
    d_in = round(atoms / superposition) if is_number and superposition > 0 else 0
    if d_in < 1:
        raise argument_error(
            "superposition",
            expected=f"a positive number of filters for each channel, at most their number {atoms}",
            got=superposition,
            remedy="1.5 is the default.",
        )
    generator = torch.Generator().manual_seed(seed)
    columns_AD = torch.randn(atoms, d_in, generator=generator)
    columns_AD = F.normalize(columns_AD, dim=1)
    kernels: dict[str, list[Tensor]] = {"grey": [], "opponent": []}
    channels: dict[str, list[int]] = {"grey": [], "opponent": []}
    for atom, (f, h) in enumerate(zip(atom_base.tolist(), atom_pose.tolist(), strict=True)):
        shape = shapes[f]
        w = _noise(size, generator) if control else torch.from_numpy(kernel(shape, G, h, size))
        kernels[shape.plane].append(w)
        channels[shape.plane].append(atom)
    grey, opponent = (
        torch.stack(part)[:, None] if part else torch.zeros(0, 1, size, size) for part in kernels.values()
    )
    order = torch.tensor(channels["grey"] + channels["opponent"]).argsort()
    scale = torch.tensor([shape.scale for shape in shapes])[atom_base]
    filters = Filters(grey, opponent, order, scale)
    return KnownBank(
        filters, columns_AD, None if control else _truth(G, names, subgroups, atom_base, atom_pose, columns_AD)
    )


def _truth(
    G: PlanarGroup,
    names: tuple[str, ...],
    subgroups: Sequence[PlanarSubgroup],
    atom_base: Tensor,
    atom_pose: Tensor,
    columns_AD: Tensor,
) -> BankTruth:
    # atom_at[f, h]: the channel of filter h of shape f, which is that of the head of its coset.
    atom_at = torch.empty(len(names), G.order, dtype=torch.int64)
    for atom, (f, h) in enumerate(zip(atom_base.tolist(), atom_pose.tolist(), strict=True)):
        atom_at[f, torch.from_numpy(G.cayley[h, subgroups[f].elements])] = atom
    base = columns_AD[atom_at] / G.order**0.5
    atoms = translate(base[atom_base], G, atom_pose)
    return BankTruth(G, base, list(subgroups), atoms, atom_base, atom_pose, names)


def _noise(size: int, generator: torch.Generator) -> Tensor:
    """White noise through a Gaussian of σ = 0.15 radii, as fine as the shapes, windowed and scaled as they are."""
    v = torch.from_numpy(window(offsets(size)))
    v = v / v.sum()
    at = np.arange(size) - size // 2
    taps = torch.from_numpy(np.exp(-0.5 * ((at[:, None] - at) / (0.15 * size / 2)) ** 2))
    f = taps @ torch.randn(size, size, generator=generator, dtype=torch.float64) @ taps
    f = f - (v * f).sum()
    return v * f / (v * f.square()).sum().sqrt()
