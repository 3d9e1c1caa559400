"""causal_check: move a family to another pose at the layer, and compare with the network on the transformed image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from groupcc.analysis import Atlas, Families
from groupcc.causal.members import Member, Writer, members_of
from groupcc.causal.result import CONDITIONS, CausalCheck, family_effect
from groupcc.causal.tail import Tail
from groupcc.errors import DataError, argument_error, is_whole
from groupcc.groups import Group, as_action
from groupcc.groups.translate import translation_table
from groupcc.harvesting.decode import UnusableImageError
from groupcc.harvesting.harvest import load_canvas
from groupcc.harvesting.plan import HarvestPlan, plan_harvest
from groupcc.models import GroupCrosscoder
from groupcc.ops import orbit_gather
from groupcc.views.geometry import Margin, sampling_points
from groupcc.views.lattice import Lattice
from groupcc.views.layers import LayerReader, evaluation_mode, parameter_kind
from groupcc.views.preprocess import PreprocessLike

__all__ = ["causal_check"]

ELEMENTS = 4
"""How many elements images are transformed by, where none are given."""


@torch.no_grad()
def causal_check(
    model: nn.Module | str,
    layer: str,
    crosscoder: GroupCrosscoder,
    images: Any,
    families: Atlas | Families,
    *,
    only: Sequence[int] | None = None,
    n_families: int = 8,
    elements: Sequence[int] | None = None,
    later: Sequence[str] = (),
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    input_size: int | tuple[int, int] | None = None,
    preprocess: PreprocessLike = None,
    interpolation: str = "bspline",
    lattice: Lattice | None = None,
    margin: Margin = "receptive_field",
    max_images: int = 16,
    forward_batch: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> CausalCheck:
    """Does the rest of the network use a family as the family says? Latents of x in pose g, moved to pose hg, should do
    in the network what T_h x does.

    An interchange intervention (Geiger et al. 2021) on the layer's map A of T_h x. At a position q of it, p = h⁻¹q is
    where x shows the same thing, and the orbit of T_h x at q is that of x at p translated, a'_g = a_{gh}. With f(p) and
    f'(q) the latents of the two orbits, w_l = W_dec[l, e] what latent l writes upright, and F the family:

        measured   c'(q) = Σ_{l∈F} f'_l(q) w_l            what the family is said to write in T_h x
        reposed    ĉ(q)  = Σ_{l∈F} f_l(p) s_l w_{τ_h(l)}  τ_h(l): the member most like R_h d_l, s_l = ‖d_l‖/‖d_τ‖

    and what the network itself wrote there, in the family's space, is y(q) = Π_F (a'_e(q) − b_e − Σ_{l∉F} f'_l(q) w_l),
    Π_F the projection on the span of the w_l of F. The truth is the network's activation, not the dictionary's account
    of it: a tied dictionary with encoder "orbit" has ĉ = c' by construction (its latents move with the orbit whatever
    the network does), and a score against c' would be 1 for nothing. Where F is active in c' or ĉ, y is taken out of
    A(T_h x), and with nothing in its place ("ablated") or one of these the rest of the network runs:

        averaged             the mean of y over these positions and over all elements: neither pose nor place is left
        reposed, measured    as above; the second is the ceiling that the dictionary's own error sets
        unmoved              the family as x has it at q, in its own poses: position and pose not moved
        wrong                the family moved by another of the elements, the next one in `elements`
        random               ĉ with each w_τ replaced by that of a random atom outside F, at the same length

    Score of a condition: 1 − Σ‖o − o*‖² / Σ‖o_averaged − o*‖², o the read-out (the model's output, and each `later`
    layer's), o* the intact network's on T_h x; sums over images and elements. 1: the network goes on as on T_h x.
    0: no better than with the family's average, which alone does most of the work wherever later layers pool; so the
    score is of what pose and place add. It is high only if ĉ is what the network wrote, in the directions that later
    layers read, and tells something only beside its controls: an invariant family is right unmoved in pose.

    Everything comes from the maps A(T_g x) of |G| forward passes an image, sampled at q and at h⁻¹q, between pixels
    too; detail that this sampling smooths away is left in place in every condition. Positions are those that `harvest`
    takes with positions="all".

    Args:
        model, layer, images, weights, device, input_size, preprocess, interpolation, lattice, margin: as in `harvest`;
            they must be those of the orbits that the crosscoder was trained on. `max_images`: how many are used.
        families: an atlas, or its families. `only`: which of them; by default the first `n_families`, the largest.
        elements: which elements h; by default `ELEMENTS` of them, spread over the group without the identity.
        later: names of layers after `layer` to read too.
        forward_batch: maps in one forward pass. seed: of the random control.

    Returns:
        One `FamilyEffect` for each family and read-out. Deterministic on the CPU.

    Raises:
        ArgumentError: an argument is wrong, or crosscoder, families and layer don't go together.
        DataError: no image could be used.
    """
    group = crosscoder.group
    given = families.families if isinstance(families, Atlas) else families
    chosen = _chosen_families(given, crosscoder, only, n_families)
    moves = _chosen_elements(group, elements)
    for name, value in (("max_images", max_images), ("forward_batch", forward_batch)):
        if not is_whole(value, 1):
            raise argument_error(name, expected="a whole number of at least 1", got=value, remedy="Raise it.")
    plan = plan_harvest(
        model,
        layer,
        images,
        group,
        weights=weights,
        device=device,
        input_size=input_size,
        preprocess=preprocess,
        seed=seed,
        interpolation=interpolation,
        lattice=lattice,
        margin=margin,
        max_images=max_images,
    )
    if plan.layout.d_in != crosscoder.config.d_in:
        raise argument_error(
            "crosscoder",
            expected=f"d_in={plan.layout.d_in}, the channels of {layer!r}",
            got=f"d_in={crosscoder.config.d_in}",
            remedy="Give the layer that its orbits came from.",
        )
    writer = Writer(crosscoder)
    members = [members_of(writer, (given.labels == family).nonzero()[:, 0]) for family in chosen]
    check = _Check(plan, writer, members, moves, Tail(plan.model, plan.layer, later), forward_batch, seed)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        with evaluation_mode(plan.model):
            for item in tqdm(plan.source.items(0), total=plan.images, desc="causal check", disable=not progress):
                if check.images == max_images:
                    break
                try:
                    canvas, _ = load_canvas(plan, item)
                except UnusableImageError:
                    continue
                check.add(canvas[None])
    finally:
        crosscoder.train(was_training)
    if not check.images:
        raise DataError(
            "no image could be used for the causal check. Give readable images, large enough for the model."
        )
    effects = []
    for row, family in enumerate(chosen):
        size = int((given.labels == family).sum())
        cosine = check.cosine[row] / check.power[row] if check.power[row] > 0 else float("nan")
        for column, readout in enumerate(check.tail.readouts):
            errors = np.stack([image[row, column] for image in check.errors])
            variance = check.variance(readout)
            effects.append(family_effect(family, size, readout, check.changed[row], cosine, errors, variance))
    names = [group.element_names[h] for h in moves]
    return CausalCheck(
        effects,
        names,
        check.images,
        len(plan.geometry.candidates),
        crosscoder=crosscoder.fingerprint(),
        families=given.fingerprint(),
    )


class _Check:
    """Runs image by image. `errors`: for each image [families, read-outs, conditions], sums over elements."""

    def __init__(
        self,
        plan: HarvestPlan,
        writer: Writer,
        members: list[Member],
        moves: list[int],
        tail: Tail,
        forward_batch: int,
        seed: int,
    ) -> None:
        self.plan, self.writer, self.members, self.moves, self.tail = plan, writer, members, moves, tail
        self.forward_batch = forward_batch
        self.group = writer.group
        self.action = as_action(writer.group)
        self.reader = LayerReader(plan.model, plan.layer)
        self.dtype, self.device = parameter_kind(plan.model)
        self.q = np.array(plan.geometry.candidates, dtype=np.int64)
        self.images = 0
        self.errors: list[np.ndarray] = []
        self.intact: dict[str, list[torch.Tensor]] = {name: [] for name in tail.readouts}
        self.changed = [0] * len(members)
        self.cosine, self.power = [0.0] * len(members), [0.0] * len(members)
        self._moved = {h: [self._rewrite(member, h) for member in members] for h in [self.group.identity, *moves]}
        generator = torch.Generator().manual_seed(seed)
        self._random = {
            h: [self._strangers(m, r, generator) for m, r in zip(members, self._moved[h], strict=True)] for h in moves
        }

    def _rewrite(self, member: Member, h: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of every atom: the one that takes over at h (−1 outside the family), the factor of its act, the cosine."""
        to, factor, cosine = self.writer.takes_over(member, h)
        atoms = len(self.writer.upright)
        chosen = torch.full((atoms,), -1, dtype=torch.int64, device=to.device)
        factors, cosines = torch.zeros(atoms, device=to.device), torch.zeros(atoms, device=to.device)
        chosen[member.atoms], factors[member.atoms], cosines[member.atoms] = to, factor, cosine
        return chosen, factors, cosines

    def _strangers(
        self, member: Member, moved: tuple[torch.Tensor, torch.Tensor, torch.Tensor], generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `_rewrite`, but a random live atom outside the family in place of the one that takes over."""
        chosen, factors, _ = moved
        lengths = self.writer.upright.norm(dim=1)
        outside = lengths > 0
        outside[member.atoms] = False
        others = outside.nonzero()[:, 0]
        if len(others) == 0:
            return chosen, torch.zeros_like(factors)
        drawn = others[torch.randint(len(others), (len(member.atoms),), generator=generator).to(others.device)]
        strangers, scaled = chosen.clone(), factors.clone()
        strangers[member.atoms] = drawn
        scaled[member.atoms] *= lengths[chosen[member.atoms]] / lengths[drawn]
        return strangers, scaled

    def add(self, canvas: torch.Tensor) -> None:
        """One canvas [1, C, h, w]."""
        group, e = self.group, self.group.identity
        inputs, maps = self._run(canvas.to(self.device))
        # Latents of x at q and at every h⁻¹q.
        seen = {h: self.writer.encode(self._orbits(maps, h)) for h in [e, *self.moves]}
        errors = np.zeros((len(self.members), len(self.tail.readouts), len(CONDITIONS)))
        table = translation_table(group, maps.device)
        x, y = torch.from_numpy(self.q.copy()).to(maps.device).unbind(1)
        puts: list[list[dict[str, torch.Tensor]]] = []
        taken: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        for turn, h in enumerate(self.moves):
            there = self._orbits(maps, h)[:, table[h]]  # the orbits of T_h x at q
            acts, atoms = self.writer.encode(there)
            left = there[:, e].to(self.writer.upright) - self.writer.bias - self.writer.write(acts, atoms)
            other = self.moves[(turn + 1) % len(self.moves)]
            puts.append([])
            taken.append([])
            for row, member in enumerate(self.members):
                chosen, factors, cosines = self._moved[h][row]
                own, one, _ = self._moved[e][row]
                measured = self.writer.write(acts, atoms, own, one)
                self._note(row, seen[h], chosen, cosines)
                active = self._active(acts, atoms, chosen) | self._active(*seen[h], chosen)
                written = (left + measured) @ member.basis.T @ member.basis
                taken[turn].append((active, torch.where(active[:, None], written, 0.0)))
                self.changed[row] += int(active.sum())
                puts[turn].append(
                    {
                        "ablated": torch.zeros_like(measured),
                        "reposed": self.writer.write(*seen[h], chosen, factors),
                        "measured": measured,
                        "unmoved": self.writer.write(*seen[e], own, one),
                        "wrong": self.writer.write(*seen[other], *self._moved[other][row][:2]),
                        "random": self.writer.write(*seen[h], *self._random[h][row]),
                    }
                )
        for row in range(len(self.members)):
            count = sum(int(parts[row][0].sum()) for parts in taken)
            mean = sum(parts[row][1].sum(0) for parts in taken) / max(count, 1)
            for turn, parts in enumerate(taken):
                puts[turn][row]["averaged"] = parts[row][0][:, None] * mean
        for turn, h in enumerate(self.moves):
            edited = [maps[h]]
            for row in range(len(self.members)):
                for name in CONDITIONS:
                    changed = maps[h].clone()
                    changed[y, x] += (puts[turn][row][name] - taken[turn][row][1]).to(changed)
                    edited.append(changed)
            self._compare(inputs[h : h + 1], edited, errors)
        self.errors.append(errors)
        self.images += 1

    def _run(self, canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """T_g x as the model takes it, [G, C, h, w], and the layer's maps of them, [G, H, W, D]."""
        geometry = self.plan.geometry
        turned = self.action.transform(canvas, frame=geometry.frame)
        inputs = self.plan.preprocess(turned[0]).to(self.dtype)
        maps = torch.cat([self.reader(part) for part in inputs.split(self.forward_batch)])
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32)).permute(0, 2, 3, 1)
        if not bool(maps.isfinite().all()):
            raise DataError(f"{self.plan.layer} gives NaN or infinity. Check the model's weights, or its dtype.")
        return inputs, maps

    def _orbits(self, maps: torch.Tensor, h: int) -> torch.Tensor:
        """The orbits [P, G, D] of x at the positions h⁻¹q."""
        geometry, pivot = self.plan.geometry, np.asarray(self.plan.geometry.map_pivot, dtype=np.float64)
        at = self.action.move(self.q - pivot, [int(self.group.inverse[h])])[0] + pivot
        return orbit_gather(maps[None], sampling_points(geometry, self.action, at), self.plan.interpolation)

    def _active(self, acts: torch.Tensor, atoms: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Where some atom of the family is active, bool [P]."""
        return ((chosen[atoms] >= 0) & (acts > 0)).any(1)

    def _note(
        self, row: int, seen: tuple[torch.Tensor, torch.Tensor], chosen: torch.Tensor, cosines: torch.Tensor
    ) -> None:
        acts, atoms = seen
        power = torch.where(chosen[atoms] >= 0, acts.double().square(), 0.0)
        self.power[row] += float(power.sum())
        self.cosine[row] += float((power * cosines[atoms]).sum())

    def _compare(self, inputs: torch.Tensor, edited: list[torch.Tensor], errors: np.ndarray) -> None:
        """Adds the read-outs' sums of squares to `errors`; the first of the maps is intact."""
        parts = [
            self.tail(inputs, torch.stack(edited[start : start + self.forward_batch]))
            for start in range(0, len(edited), self.forward_batch)
        ]
        for column, name in enumerate(self.tail.readouts):
            values = torch.cat([part[name] for part in parts])
            self.intact[name].append(values[0])
            squares = (values[1:] - values[0]).square().sum(1)
            errors[:, column] += squares.view(len(self.members), len(CONDITIONS)).numpy()

    def variance(self, readout: str) -> float:
        """Sum of squares of the intact read-outs about their mean."""
        values = torch.stack(self.intact[readout])
        return float((values - values.mean(0)).square().sum())


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
