"""What may be claimed beside the nulls, in words."""

from __future__ import annotations

from groupcc.analysis import Atlas
from groupcc.analysis.evidence.null_counts import FAMILIES, VARIANCE, Share
from groupcc.analysis.numbers import listed
from groupcc.groups import PlanarGroup

__all__ = ["claim", "quantity_words"]

WORDS = {
    "invariant": "latents that are alike under every transform",
    "90": "latents that repeat every 90°",
    "180": "latents that repeat every 180°",
    "other-rotation": "latents that repeat at another angle",
    "mirror": "latents with one mirror line",
    "none": "latents with no symmetry",
    "undecided": "undecided latents",
    FAMILIES: "latents in families of rotated copies",
    VARIANCE: "variance of the layer that is alike under every transform",
}


def quantity_words(name: str, group: PlanarGroup) -> str:
    """Returns what a quantity counts."""
    return (
        WORDS[name].replace("rotated copies", "rotated or mirrored copies") if group.kind == "dihedral" else WORDS[name]
    )


def claim(atlas: Atlas) -> str:
    """Returns in one sentence what the dictionary shows that a network with random weights does not; "" without
    orbits."""
    nulls = atlas.nulls
    if nulls is None:
        return ""
    if nulls.claims is None or nulls.random is None:
        return (
            "These counts were not compared with a network with random weights (nulls, --nulls): by themselves they do "
            "not show that the network learned a symmetry."
        )
    more = [
        f"{quantity_words(name, atlas.group)} ({_beside(nulls.own[name], nulls.random[name])})" for name in nulls.claims
    ]
    if not more:
        return "Nothing here exceeds what the same network has with random weights: no learned symmetry is claimed."
    return f"More than the same network has with random weights: {listed(more)}. Nothing else is claimed."


def _beside(own: Share, random: Share) -> str:
    return f"{100 * own.value:.0f} % against {100 * random.value:.0f} %"
