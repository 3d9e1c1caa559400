"""causal_check: move a family to another pose at the layer, and compare with the network on the transformed image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from groupcc.analysis import Atlas, Families
from groupcc.causal.interchange import Interchange
from groupcc.causal.members import Writer, members_of
from groupcc.causal.result import CausalCheck, FamilyEffect, family_effect
from groupcc.causal.tail import Tail
from groupcc.errors import DataError, argument_error, check_options, is_whole
from groupcc.groups import Group
from groupcc.harvesting.canvas import load_canvas
from groupcc.harvesting.decode import DEFAULT_MAX_PIXELS, UnusableImageError
from groupcc.harvesting.sources import Source, open_source
from groupcc.models import GroupCrosscoder
from groupcc.views import LayerView, ViewOptions
from groupcc.views.given import view_for
from groupcc.views.layers import evaluation_mode
from groupcc.views.options import VIEW_DEFAULTS

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["causal_check"]

ELEMENTS = 4
"""How many elements images are transformed by, if none are given."""


@torch.no_grad()
def causal_check(
    model: nn.Module | str | LayerView,
    layer: str | None,
    crosscoder: GroupCrosscoder,
    images: Any,
    families: Atlas | Families,
    *,
    only: Sequence[int] | None = None,
    n_families: int = 8,
    elements: Sequence[int] | None = None,
    later: Sequence[str] = (),
    max_images: int = 16,
    forward_batch: int = 32,
    seed: int = 0,
    progress: bool = True,
    **options: Unpack[ViewOptions],
) -> CausalCheck:
    """Does the rest of the network use a family as the family says?

    A family says that its latents show one shape in several poses. If T_h moves the image, then a latent of x in pose
    g should be the one in pose hg. So the latents of x, moved by h and written into the layer's map of T_h x, should
    leave the network doing what it does on T_h x. That is an interchange intervention (Geiger et al. 2021);
    [`Interchange`][groupcc.causal.interchange.Interchange] has its formulas.

    What the family F itself wrote into the map, y, is taken out wherever F fires. In its place is put:

        ablated    nothing
        averaged   the mean of y over these positions and over all elements, so that neither pose nor place is left
        reposed    the latents of x at h⁻¹q, moved to their poses under h
        measured   the latents of T_h x at q as they are: the ceiling that the dictionary's own error sets
        placed     the latents of x at h⁻¹q in their own poses: the place is moved alone
        turned     the latents of x at q, moved to their poses under h: the pose is moved alone
        unmoved    the latents of x at q in their own poses: neither place nor pose is moved
        wrong      as "reposed", but moved by another element, the next one in `elements`
        random     as "reposed", but each atom is replaced by a random one outside F, at the same length

    The score of a condition is 1 − Σ‖o − o*‖² / Σ‖o_averaged − o*‖². o is the read-out (the model's output, and that
    of each `later` layer) and o* the intact network's on T_h x; sums are over images and elements. At 1 the network
    goes on as on T_h x. At 0 it does no better than with the family's average. Later layers pool, so the average alone
    does most of the work: the score is of what pose and place add. It means something only beside its controls. A
    network that sums over the poses goes on rightly if the place is moved alone ("placed"): nothing then shows that
    poses are used. [`FamilyEffect`][groupcc.causal.FamilyEffect] defines the verdicts.

    Maps come from |G| forward passes an image, and are read at the positions that `harvest` takes with
    positions="all", between pixels too. Detail that this sampling smooths away stays in place in every condition.

    Args:
        model, layer, images, options: as in `harvest`; they must be those of the orbits that the crosscoder was
            trained on. A `LayerView` stands in for model, layer (None) and options
            ([`ViewOptions`][groupcc.views.ViewOptions]).
        families: an atlas, or its families. `only`: which of them; by default the first `n_families`, the largest.
        elements: which elements h; by default `ELEMENTS` of them, spread over the group without the identity.
        later: names of layers after `layer` to read too.
        max_images: how many images are used. forward_batch: maps in one forward pass. seed: of the random control.

    Returns:
        One `FamilyEffect` for each family and read-out. Deterministic on the CPU.

    Raises:
        ArgumentError: an argument is wrong or unknown, or crosscoder, families and layer don't go together.
        DataError: no image could be used; NaN or infinity from the model.
    """
    check_options(causal_check, options, VIEW_DEFAULTS)
    given = families.families if isinstance(families, Atlas) else families
    chosen = _chosen_families(given, crosscoder, only, n_families)
    moves = _chosen_elements(crosscoder.group, elements)
    for name, value in (("max_images", max_images), ("forward_batch", forward_batch)):
        if not is_whole(value, 1):
            raise argument_error(name, expected="a whole number of at least 1", got=value, remedy="Raise it.")
    if not is_whole(seed, 0):
        raise argument_error("seed", expected="a whole number of at least 0", got=seed, remedy="0 is the default.")
    source = open_source(images, DEFAULT_MAX_PIXELS)
    group = None if isinstance(model, LayerView) else crosscoder.group
    view = view_for(model, layer, group, source.image_kind, None, options)
    _check_fit(view, crosscoder)
    writer = Writer(crosscoder)
    members = [members_of(writer, (given.labels == family).nonzero()[:, 0]) for family in chosen]
    check = Interchange(view, writer, members, moves, Tail(view, later), seed)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        with evaluation_mode(view.model):
            _run(check, source, max_images, forward_batch, progress)
    finally:
        crosscoder.train(was_training)
    return CausalCheck(
        _effects(check, chosen, [int((given.labels == family).sum()) for family in chosen]),
        [view.group.element_names[h] for h in moves],
        check.images,
        len(view.geometry.candidates),
        crosscoder=crosscoder.fingerprint(),
        families=given.fingerprint(),
    )


def _run(check: Interchange, source: Source, max_images: int, forward_batch: int, progress: bool) -> None:
    """Runs the check on the first `max_images` usable images; DataError if there is none."""
    count = min(max_images, source.count or max_images)
    for item in tqdm(source.items(0), total=count, desc="causal check", disable=not progress):
        if check.images == max_images:
            break
        try:
            canvas, _ = load_canvas(check.view, item)
        except UnusableImageError:
            continue
        check.add(canvas[None], item.name, forward_batch)
    if not check.images:
        raise DataError(
            "no image could be used for the causal check. Give readable images, large enough for the model."
        )


def _effects(check: Interchange, families: list[int], sizes: list[int]) -> list[FamilyEffect]:
    """One for each family and read-out, families outermost."""
    effects = []
    for row, (family, size, tally) in enumerate(zip(families, sizes, check.tallies, strict=True)):
        for column, readout in enumerate(check.tail.readouts):
            errors = np.stack([image[row, column] for image in check.errors])
            variance = check.variance(readout)
            effects.append(family_effect(family, size, readout, tally, errors, variance))
    return effects


def _check_fit(view: LayerView, crosscoder: GroupCrosscoder) -> None:
    """ArgumentError unless the crosscoder may be of orbits that this view reads."""
    if view.d_in != crosscoder.config.d_in:
        raise argument_error(
            "crosscoder",
            expected=f"d_in={view.d_in}, the channels of {view.layer!r}",
            got=f"d_in={crosscoder.config.d_in}",
            remedy="Give the layer that its orbits came from.",
        )
    if view.group != crosscoder.group or view.orbit != "input":
        raise argument_error(
            "model",
            expected=f"a view of input orbits under {crosscoder.group.name}, the crosscoder's group",
            got=f"one of {view.orbit} orbits under {view.group.name}",
            remedy="Give the view that its orbits were harvested through.",
        )


def _chosen_families(
    given: Families, crosscoder: GroupCrosscoder, only: Sequence[int] | None, n_families: int
) -> list[int]:
    if not isinstance(given, Families) or len(given.labels) != crosscoder.config.n_latents:
        got = f"families of {len(given.labels)} latents" if isinstance(given, Families) else type(given).__name__
        raise argument_error(
            "families",
            expected=f"the atlas of this crosscoder, which has {crosscoder.config.n_latents} latents",
            got=got,
            remedy="groupcc.analyze(crosscoder, orbits) makes it.",
        )
    chosen = list(range(min(n_families, len(given)))) if only is None else [int(family) for family in only]
    if not chosen or any(not 0 <= family < len(given) for family in chosen):
        raise argument_error(
            "only",
            expected=f"families from 0 to {len(given) - 1}" if len(given) else "an atlas with a live latent",
            got=chosen,
            remedy="atlas.families lists them, the largest first.",
        )
    return chosen


def _chosen_elements(group: Group, elements: Sequence[int] | None) -> list[int]:
    if elements is None:
        spread = np.linspace(0, group.order, min(ELEMENTS, group.order - 1) + 1)[:-1]
        moves = sorted({int(h) for h in np.ceil(spread + 1e-9)}) if group.order > 1 else []
    else:
        moves = [int(h) for h in elements]
    if len(set(moves)) != len(moves) or len(moves) < 2 or any(not 0 < h < group.order for h in moves):
        raise argument_error(
            "elements",
            expected=f"two or more different elements of {group.name} without the identity",
            got=moves,
            remedy="One is the control of another; a group of order 2 or less has too few.",
        )
    return moves
