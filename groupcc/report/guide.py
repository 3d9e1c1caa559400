"""The worked examples of "How to read this page": ideal shapes, their rings, and a drawing of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from groupcc.groups import PlanarGroup
from groupcc.report.svg import ring, ring_figure

__all__ = ["Guide", "GuideShape", "annotated_ring", "guide_group", "guide_shapes", "ideal_correlation"]


@dataclass(frozen=True)
class GuideShape:
    """A shape, how its ring looks, and why."""

    name: str
    icon: str
    ring: Markup
    words: str


@dataclass(frozen=True)
class Guide:
    """The examples under the group called `name`: the shapes, and the large ring with its explanations."""

    name: str
    shapes: list[GuideShape]
    annotated: Markup

    @classmethod
    def of(cls, group: PlanarGroup) -> Guide:
        """Returns the examples for a page about `group`."""
        drawn = guide_group(group)
        return cls(drawn.name, guide_shapes(drawn), annotated_ring(drawn))


# Share of a shape's energy at each angular frequency k: the pattern turned by θ overlaps with itself as Σ p_k cos kθ.
_LINE = {0: 0.1, 2: 0.5, 4: 0.3, 6: 0.1}
_CURVE = {0: 0.2, 1: 0.3, 2: 0.3, 3: 0.2}
_EDGE = {0: 0.05, 1: 0.65, 3: 0.3}
_SPIRAL = {0: 0.05, 1: 0.3, 2: 0.3, 3: 0.25, 4: 0.1}
_CROSS = {0: 0.25, 4: 0.6, 8: 0.15}


def ideal_correlation(shares: dict[int, float], group: PlanarGroup, axis: float, twist: float = 0.0) -> np.ndarray:
    """Returns the autocorrelation [G] of an ideal shape: Σ p_k cos kθ for the rotation by θ, and
    Σ p_k cos(2k(α − axis) + k²·twist) for the reflection in the line at α (radians). `twist` ≠ 0 gives a chiral shape
    without a mirror line."""
    values = np.zeros(group.order)
    for k, share in shares.items():
        mirror = np.cos(2 * k * (np.radians(np.nan_to_num(group.axes)) - axis) + k * k * twist)
        values += share * np.where(group.reflections, mirror, np.cos(k * group.angles))
    return values


def guide_group(group: PlanarGroup) -> PlanarGroup:
    """Returns the group under which the examples are drawn: `group`, or one of 16 rotations without quarter turns."""
    if group.n >= 8 and group.n % 4 == 0:
        return group
    return PlanarGroup(group.kind, 16)


def guide_shapes(group: PlanarGroup) -> list[GuideShape]:
    """Returns the shapes that a reader will meet, with their rings."""
    mirrors = group.kind == "dihedral"
    up = np.pi / 2
    line = "Orange at no turn and again at half a turn"
    line += ", and at two mirror lines, along and across it." if mirrors else "."
    curve = "Orange at no turn only" + (", and at the one mirror line through its middle." if mirrors else ".")
    examples = [
        ("Circle", "circle", ideal_correlation({0: 1.0}, group, up), "One colour all round: nothing changes it."),
        ("Line", "line", ideal_correlation(_LINE, group, up), line),
        ("Cross, grid", "cross", ideal_correlation(_CROSS, group, up), "Orange four times round, every quarter turn."),
        ("Curve", "curve", ideal_correlation(_CURVE, group, up), curve),
        (
            "Edge",
            "edge",
            ideal_correlation(_EDGE, group, up),
            "Like a curve, but blue at half a turn: dark and bright have changed sides.",
        ),
    ]
    if mirrors:
        words = "Orange at no turn only, and at no mirror line: its mirror image is another pattern."
        examples.append(("Hook, spiral", "spiral", ideal_correlation(_SPIRAL, group, up, twist=0.9), words))
    shapes = []
    for name, icon, values, words in examples:
        figure = ring_figure(ring(values, group), group, f"Ring of an ideal {name.lower()}: {words}")
        shapes.append(GuideShape(name, icon, figure, words))
    return shapes


def annotated_ring(group: PlanarGroup) -> Markup:
    """Returns the large example ring: a vertical line."""
    values = ideal_correlation(_LINE, group, np.pi / 2)
    label = "Example ring of a vertical line: orange at 0° and 180° on the inner ring"
    # Half a turn and a quarter turn, in the middle of their ring's width; then a mirror line's end.
    axes: list[float] = []
    badges = [(325.0, 90.0), (325.0, 270.0), (325.0, 180.0)]
    if group.kind == "dihedral":
        label += ", and at the vertical and the horizontal mirror line on the outer ring"
        axes = [0.0, 90.0]
        badges = [(255.0, 90.0), (255.0, 270.0), (255.0, 180.0), (407.0, 0.0)]
    return ring_figure(ring(values, group), group, label, axes, large=True, badges=badges)
