"""The interventions of a causal check on one image: what is put in a family's place, and what the network then does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from groupcc.causal.members import Member, Writer
from groupcc.causal.scores import CONDITIONS, Tally
from groupcc.causal.tail import Tail
from groupcc.groups.arrays import FloatArray
from groupcc.groups.translate import translate
from groupcc.views import LayerView

__all__ = ["Interchange", "Move", "take_over_by_strangers", "taken_over"]


class Move(NamedTuple):
    """Which atom takes over from each when a family is moved; all [A].

    `to`: the atom, −1 outside the family. `factor`: what to multiply the act by. `cosine`: of R_h d_l and its
    successor.
    """

    to: torch.Tensor
    factor: torch.Tensor
    cosine: torch.Tensor


class Edit(NamedTuple):
    """One family at the positions of one transformed image.

    `active` [P]: where it fires. `taken` [P, D]: what it wrote there, and is taken out. `put`: for each condition what
    stands in its place, [P, D].
    """

    active: torch.Tensor
    taken: torch.Tensor
    put: dict[str, torch.Tensor]


class Interchange:
    """Runs the conditions of `causal_check` image by image.

    Let A be the layer's map of T_h x. At a position q of it, x shows the same thing at p = h⁻¹q, and the orbit of T_h x
    at q is that of x at p translated by h: a'_g = a_{gh}. With f(p) and f'(q) the latents of the two orbits, w_l what
    latent l writes upright (W_dec[l, e] if nothing is tied), and F the family:

        measured   c'(q) = Σ_{l∈F} f'_l(q) w_l            what the family is said to write in T_h x
        reposed    ĉ(q)  = Σ_{l∈F} f_l(p) s_l w_{τ_h(l)}  τ_h(l): the member most like R_h d_l, s_l = ‖d_l‖/‖d_τ‖
        placed             Σ_{l∈F} f_l(p) w_l             ĉ(q) without τ: the place is moved alone
        turned             Σ_{l∈F} f_l(q) s_l w_{τ_h(l)}  ĉ with q in place of p: the pose is moved alone

    The network itself wrote, in the family's space, y(q) = Π_F (a'_e(q) − b_e − Σ_{l∉F} f'_l(q) w_l), with Π_F the
    projection on the span of the w_l of F. y is taken out if F is active in c' or in ĉ.

    The truth is y, the network's activation, and not c', the dictionary's account of it. A tied dictionary with encoder
    "orbit" has ĉ = c' by construction: its latents move with the orbit whatever the network does. Scored against c',
    it would get 1 for nothing.

    `errors`: for each image the sums of squares between read-outs and the intact ones, [families, read-outs,
    conditions], summed over elements. `tallies`: one for each family.
    """

    def __init__(
        self, view: LayerView, writer: Writer, members: Sequence[Member], moves: Sequence[int], tail: Tail, seed: int
    ) -> None:
        self.view, self.writer, self.members, self.moves, self.tail = view, writer, members, moves, tail
        self.group = writer.group
        self.positions = np.array(view.geometry.candidates, dtype=np.int64)
        self.errors: list[FloatArray] = []
        self.tallies = [Tally() for _ in members]
        self._intact: dict[str, list[torch.Tensor]] = {name: [] for name in tail.readouts}
        everything = [self.group.identity, *moves]
        self._moved = {h: [taken_over(writer, member, h) for member in members] for h in everything}
        generator = torch.Generator().manual_seed(seed)
        self._random = {
            h: [
                take_over_by_strangers(writer, member, move, generator)
                for member, move in zip(members, self._moved[h], strict=True)
            ]
            for h in moves
        }

    @property
    def images(self) -> int:
        """How many have been run."""
        return len(self.errors)

    def add(self, canvas: torch.Tensor, name: str, forward_batch: int) -> None:
        """Runs every condition on one canvas [1, C, h, w], `forward_batch` maps in one forward pass.

        `name`: the image's, for an error.
        """
        inputs = self.view.inputs(canvas)
        maps = self.view.run(inputs, at_once=forward_batch, names=[name])
        # Latents of x at q and at every h⁻¹q.
        seen = {h: self.writer.encode(self._orbits(maps, h)) for h in [self.group.identity, *self.moves]}
        edits = [self._edits(maps, seen, turn) for turn in range(len(self.moves))]
        for row, tally in enumerate(self.tallies):
            of_row = [of_members[row] for of_members in edits]
            _put_average(of_row)
            tally.images += any(bool(edit.active.any()) for edit in of_row)
        errors = np.zeros((len(self.members), len(self.tail.readouts), len(CONDITIONS)))
        for h, of_members in zip(self.moves, edits, strict=True):
            errors += self._squares(inputs[h : h + 1], self._changed_maps(maps[h], of_members), forward_batch)
        self.errors.append(errors)

    def variance(self, readout: str) -> float:
        """Sum of squares of the intact read-outs about their mean."""
        values = torch.stack(self._intact[readout])
        return float((values - values.mean(0)).square().sum())

    def _orbits(self, maps: torch.Tensor, h: int) -> torch.Tensor:
        """The orbits [P, G, D] of x at the positions h⁻¹q."""
        pivot = np.asarray(self.view.geometry.map_pivot, dtype=np.float64)
        at = self.view.action.move(self.positions - pivot, [int(self.group.inverse[h])])[0] + pivot
        return self.view.read(maps[None], self.view.points(at))

    def _edits(self, maps: torch.Tensor, seen: dict[int, tuple[torch.Tensor, torch.Tensor]], turn: int) -> list[Edit]:
        """For each family what it wrote in T_h x, h the element of this turn, and what every condition puts there."""
        writer, e, h = self.writer, self.group.identity, self.moves[turn]
        other = self.moves[(turn + 1) % len(self.moves)]
        there = translate(self._orbits(maps, h), self.group, h)  # the orbits of T_h x at q
        acts, atoms = writer.encode(there)
        left = there[:, e].to(writer.upright) - writer.bias - writer.write(acts, atoms)
        edits = []
        for row, member in enumerate(self.members):
            move, own, wrong = self._moved[h][row], self._moved[e][row], self._moved[other][row]
            measured = writer.write(acts, atoms, own.to, own.factor)
            active = _active(acts, atoms, move) | _active(*seen[h], move)
            written = (left + measured) @ member.basis.T @ member.basis
            put = {
                "ablated": torch.zeros_like(measured),
                "reposed": writer.write(*seen[h], move.to, move.factor),
                "measured": measured,
                "placed": writer.write(*seen[h], own.to, own.factor),
                "turned": writer.write(*seen[e], move.to, move.factor),
                "unmoved": writer.write(*seen[e], own.to, own.factor),
                "wrong": writer.write(*seen[other], wrong.to, wrong.factor),
                "random": writer.write(*seen[h], self._random[h][row].to, self._random[h][row].factor),
            }
            edits.append(Edit(active, torch.where(active[:, None], written, 0.0), put))
            self._note(row, seen[h], move, active)
        return edits

    def _note(self, row: int, seen: tuple[torch.Tensor, torch.Tensor], move: Move, active: torch.Tensor) -> None:
        acts, atoms = seen
        power = torch.where(move.to[atoms] >= 0, acts.double().square(), 0.0)
        tally = self.tallies[row]
        tally.power += float(power.sum())
        tally.aligned += float((power * move.cosine[atoms]).sum())
        tally.changed += int(active.sum())

    def _changed_maps(self, map_HWD: torch.Tensor, edits: list[Edit]) -> list[torch.Tensor]:
        """The intact map, then it with each family under each condition, families outermost."""
        x, y = torch.from_numpy(self.positions.copy()).to(map_HWD.device).unbind(1)
        maps = [map_HWD]
        for edit in edits:
            for name in CONDITIONS:
                changed = map_HWD.clone()
                changed[y, x] += (edit.put[name] - edit.taken).to(changed)
                maps.append(changed)
        return maps

    def _squares(self, inputs: torch.Tensor, maps: list[torch.Tensor], forward_batch: int) -> FloatArray:
        """Sums of squares between the read-outs and those of the first map, [families, read-outs, conditions]."""
        parts = [
            self.tail(inputs, torch.stack(maps[start : start + forward_batch]))
            for start in range(0, len(maps), forward_batch)
        ]
        columns = []
        for name in self.tail.readouts:
            values = torch.cat([part[name] for part in parts])
            self._intact[name].append(values[0])
            squares = (values[1:] - values[0]).square().sum(1)
            columns.append(squares.view(len(self.members), len(CONDITIONS)).numpy())
        return np.stack(columns, axis=1)


def taken_over(writer: Writer, member: Member, h: int) -> Move:
    """Which atom of the family takes over from each of its atoms when it is moved by h."""
    to, factor, cosine = writer.takes_over(member, h)
    atoms = len(writer.upright)
    successor = torch.full((atoms,), -1, dtype=torch.int64, device=to.device)
    factors, cosines = torch.zeros(atoms, device=to.device), torch.zeros(atoms, device=to.device)
    successor[member.atoms], factors[member.atoms], cosines[member.atoms] = to, factor, cosine
    return Move(successor, factors, cosines)


def take_over_by_strangers(writer: Writer, member: Member, move: Move, generator: torch.Generator) -> Move:
    """As `move`, with a random live atom outside the family in the place of each that takes over, at equal length.

    If there is no atom outside, nothing is written.
    """
    lengths = writer.upright.norm(dim=1)
    outside = lengths > 0
    outside[member.atoms] = False
    others = outside.nonzero()[:, 0]
    if len(others) == 0:
        return move._replace(factor=torch.zeros_like(move.factor))
    drawn = others[torch.randint(len(others), (len(member.atoms),), generator=generator).to(others.device)]
    strangers, scaled = move.to.clone(), move.factor.clone()
    strangers[member.atoms] = drawn
    scaled[member.atoms] *= lengths[move.to[member.atoms]] / lengths[drawn]
    return move._replace(to=strangers, factor=scaled)


def _put_average(edits: list[Edit]) -> None:
    """Adds the condition "averaged" of one family: the mean of what is taken, over positions and elements."""
    count = sum(int(edit.active.sum()) for edit in edits)
    mean = sum(edit.taken.sum(0) for edit in edits) / max(count, 1)
    for edit in edits:
        edit.put["averaged"] = edit.active[:, None] * mean


def _active(acts: torch.Tensor, atoms: torch.Tensor, move: Move) -> torch.Tensor:
    """Where some atom of the family is active, bool [P]."""
    return ((move.to[atoms] >= 0) & (acts > 0)).any(1)
