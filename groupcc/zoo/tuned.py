"""Shapes with bumps of tuning at continuous angles: a second ground truth, made otherwise than `planted`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from groupcc.errors import argument_error
from groupcc.groups import Group, PlanarGroup, as_planar
from groupcc.groups import group as make_group
from groupcc.groups.translate import translates
from groupcc.zoo.planted import PlantedDictionary

__all__ = ["SHAPES", "Shape", "TunedShapes", "tuned"]

SHAPES = ("D1", "D2", "C1", "D1", "C2", "D4", "D3", "D1", "D2", "C1", "D1", "D5", "C4", "O2")
"""Symmetries of the shapes as they lie in the plane: curves, lines, hooks, an S, crosses, stars, a pinwheel, a circle.
`O2` is invariant: it answers alike to every rotation and reflection."""

BUMPS = 3
"""Bumps of tuning in each shape."""

SAME = 1 - 1e-5
"""Two translates with a larger cosine are one atom."""


@dataclass(frozen=True)
class Shape:
    """The symmetry of one shape: `rotations` (0: all), `mirrored`, and a mirror `axis` in degrees, in [0, 180)."""

    rotations: int
    mirrored: bool
    axis: float

    def type_under(self, group: PlanarGroup) -> str:
        """Returns the type of subgroup that a group of n rotations can see of it, mirrors at any angle: "D2"."""
        if self.rotations == 0:
            return group.name
        mirrored = self.mirrored and group.kind == "dihedral"
        return f"{'D' if mirrored else 'C'}{math.gcd(self.rotations, group.n)}"


@dataclass(frozen=True, eq=False)
class TunedShapes:
    """`dictionary`: the shapes and their distinct translates, to sample from and to compare with. `shapes`: the
    symmetry of each base latent. A mirror axis lies anywhere, so `dictionary.stabilizers` has the rotations alone."""

    dictionary: PlantedDictionary
    shapes: tuple[Shape, ...]

    @property
    def atom_types(self) -> list[str]:
        """The type of stabilizer of each atom, as `Shape.type_under`."""
        G = self.dictionary.group
        return [self.shapes[f].type_under(G) for f in self.dictionary.atom_base.tolist()]


def tuned(
    group: str | Group = "D16",
    d_in: int = 24,
    n_latents: int = 14,
    shapes: Sequence[str] = SHAPES,
    *,
    width: float = 30.0,
    constant: float = 0.0,
    seed: int = 0,
) -> TunedShapes:
    """Shapes whose channels are tuned to continuous angles.

    With F(θ, s) = Σ_j w_j^s · exp((cos(θ − μ_j^s) − 1)/σ²), w Gaussian in R^d_in and μ uniform, a shape of symmetry K
    is f(x) = Σ_{k in K} F(x·k), x a rotation by θ after s reflections, σ = `width`/m for m-fold rotation. Its blocks
    are f at the group's elements. K's mirror axis is uniform, so it mostly lies between elements.

    - `shapes`: `C<m>`, `D<m>` or `O2`, cycled. m need not divide the group's n.
    - `constant` in [0, 1): share of each shape's power that is one block, common to all shapes, alike under every
      transform.
    - Deterministic in `seed`.

    Example: `tuned("D16", shapes=("D1",))` gives curves with mirror axes at any angle.
    """
    G = as_planar(make_group(group), "tuned shapes")
    _check(d_in, n_latents, shapes, width, constant)
    generator = np.random.default_rng(seed)
    common = generator.standard_normal(d_in)
    base, symmetries = [], []
    for f in range(n_latents):
        name = shapes[f % len(shapes)]
        shape = Shape(0 if name == "O2" else int(name[1:]), name[0] != "C", float(generator.uniform(0, 180)))
        blocks = _normalised(_blocks(G, d_in, shape, math.radians(width), generator))
        if constant > 0:
            moved = blocks if shape.rotations == 0 else _normalised(blocks - blocks.mean(0))
            blocks = math.sqrt(constant) * _normalised(np.tile(common, (G.order, 1))) + math.sqrt(1 - constant) * moved
        base.append(torch.from_numpy(_normalised(blocks)).float())
        symmetries.append(shape)
    return TunedShapes(_dictionary(G, torch.stack(base), symmetries), tuple(symmetries))


def _check(d_in: int, n_latents: int, shapes: Sequence[str], width: float, constant: float) -> None:
    for name, value in (("d_in", d_in), ("n_latents", n_latents), ("shapes", len(shapes))):
        if value < 1:
            raise argument_error(name, expected="at least 1", got=value, remedy="Ask for one or more.")
    for shape in shapes:
        if shape != "O2" and not (shape[:1] in ("C", "D") and shape[1:].isdigit() and int(shape[1:]) > 0):
            raise argument_error("shapes", expected="C<m>, D<m> or O2", got=shape, remedy='For instance "D2".')
    if not 0 < width <= 180:
        raise argument_error("width", expected="degrees above 0, up to 180", got=width, remedy="The default is 30.")
    if not 0 <= constant < 1:
        raise argument_error("constant", expected="a share in [0, 1)", got=constant, remedy="0 turns it off.")


def _blocks(
    G: PlanarGroup, d_in: int, shape: Shape, width: float, generator: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Returns f at every element, [G, d_in]."""
    folds = max(shape.rotations, 1)
    weights = generator.standard_normal((2, BUMPS, d_in))
    centres = generator.uniform(0, 2 * math.pi, (2, BUMPS))
    if shape.rotations == 0:
        return np.tile(weights[0, 0], (G.order, 1))
    turn = 2 * math.pi * (np.arange(G.order) % G.n) / G.n
    flipped = (np.arange(G.order) >= G.n).astype(int)
    f = np.zeros((G.order, d_in))
    for mirror in range(1 + shape.mirrored):
        # k = rotation by `a` after `mirror` reflections. x·k turns by θ ± a: a reflection in x turns a round. The
        # mirrors x → −x after a rotation by 2φ leave the line at 90° + φ alone.
        for fold in range(folds):
            a = 2 * math.pi * fold / folds + (2 * math.radians(shape.axis - 90) if mirror else 0.0)
            theta, s = turn + np.where(flipped, -a, a), flipped ^ mirror
            bumps = np.exp((np.cos(theta[:, None] - centres[s]) - 1) / (width / folds) ** 2)
            f += np.einsum("gj,gjd->gd", bumps, weights[s])
    return f


def _dictionary(G: PlanarGroup, base: torch.Tensor, shapes: list[Shape]) -> PlantedDictionary:
    atoms: list[torch.Tensor] = []
    atom_base: list[int] = []
    atom_pose: list[int] = []
    for f, latent in enumerate(base):
        moved = translates(latent, G)
        for h in range(G.order):
            alike = [g for g in atom_pose[len(atom_pose) - atom_base.count(f) :] if _cosine(moved[g], moved[h]) > SAME]
            if not alike:
                atoms.append(moved[h])
                atom_base.append(f)
                atom_pose.append(h)
    rotations = [G.n if shape.rotations == 0 else math.gcd(shape.rotations, G.n) for shape in shapes]
    stabilizers = [G.subgroup_named(f"C{m}") for m in rotations]
    return PlantedDictionary(G, base, stabilizers, torch.stack(atoms), torch.tensor(atom_base), torch.tensor(atom_pose))


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one * other).sum() / (one.norm() * other.norm()))


def _normalised(
    blocks: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return blocks / np.linalg.norm(blocks)
