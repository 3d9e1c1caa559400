"""CrosscoderConfig: what fixes a crosscoder's shape and its sparsity."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from groupcc.errors import argument_error, check_choice, check_whole, is_real
from groupcc.groups import group as parse_group
from groupcc.models.sparsity import SPARSITIES, sparsity_of

__all__ = ["CrosscoderConfig"]

Encoder = Literal["identity", "orbit"]
Penalty = Literal["block_sum", "concat"]
DecoderNorm = Literal["unit", "free"]
Pose = Literal["max", "nms"]

RESIDUAL_PENALTY = 0.3
"""Default residual_penalty over √(|G|·d_in)."""


@dataclass(frozen=True, kw_only=True)
class CrosscoderConfig:
    """Shape and sparsity of a [`GroupCrosscoder`][groupcc.GroupCrosscoder].

    Three of these the paper's text leaves open: `encoder` (which blocks it reads; default "identity", as in the
    published code that we could read), `l1_penalty` (default "block_sum", Anthropic's crosscoders) and the order
    of its group "D32" (default reading: 32 rotations and 32 reflections).

    - `group`: name of the group, or a Group; `"C1"` makes a standard sparse autoencoder.
    - `d_in`: activation width D. `n_latents`: dictionary size L.
    - `k`: active latents per example ("topk"), or on average over a batch ("batchtopk"); unused by "l1".
    - `encoder`: "identity" reads block 0 only, "orbit" reads all blocks.
    - `sparsity`: "topk", "batchtopk", or "l1" (ReLU and a penalty).
    - `l1_coefficient`: λ of the penalty λ·Σ_l f_l·P(d_l); "l1" only, must then be positive.
    - `l1_penalty`: P(d) = Σ_g‖d_g‖ ("block_sum") or ‖d‖ over all blocks ("concat").
    - `aux_k`: dead latents that the auxiliary loss lets explain the residual (Gao et al. 2024); 0 is off; None is
      d_in / 2, at most n_latents / 2. `aux_coefficient`: its weight. `dead_after`: examples without firing after
      which a latent counts as dead.
    - `decoder_norm`: "unit" holds ‖d_l‖ = 1 over all blocks together (so block norms still say where a latent
      lives); "free" leaves it. None is "free" with "l1", whose penalty has the norm in it, and else "unit".
    - `tied`: the dictionary is closed under the group: its atoms are all translates R_h d_l of `n_latents` base
      latents, |G| times fewer parameters; `n_atoms` counts them. `k` then counts base latents in a pose. "residual"
      ties them in part: each atom is R_h d_l and a residual of its own, which training holds small.
    - `residual_penalty`: λ ≥ 0 of the penalty λ/2·‖Δ‖² on these residuals ("residual" only): each optimizer step
      divides them by 1 + lr·λ. At 0 training is that of `untie()`, at infinity that of `tied=True`. Adam moves an
      entry by about lr a step at most, so none can grow beyond 1/λ. None is 0.3·√(|G|·d_in): that bound is then 3.3
      times the root mean square of an atom's entries at unit norm, room for what the data ask for in every step.
    - `pose`: "max" (the default of a tied crosscoder) reads each base latent in its strongest pose; "nms" in every
      pose that non-maximum suppression leaves, none within `pose_distance` degrees of rotation of a stronger one, nor
      where the atoms' cosine is `pose_similarity` or more: two copies of a shape are both found, and the equal poses
      of a symmetric one count once. Untied, it takes the latents |G| at a time for the poses of one, as `untie` lays
      them out; None takes each for itself.
    """

    group: str
    d_in: int
    n_latents: int
    k: int = 32
    encoder: Encoder = "identity"
    sparsity: str = "topk"
    l1_coefficient: float = 0.0
    l1_penalty: Penalty = "block_sum"
    aux_k: int | None = None
    aux_coefficient: float = 1 / 32
    dead_after: int = 100_000
    decoder_norm: DecoderNorm | None = None
    tied: bool | Literal["residual"] = False
    residual_penalty: float | None = None
    pose: Pose | None = None
    pose_distance: float = 15.0
    pose_similarity: float = 0.7

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", parse_group(self.group).name)
        for name, minimum in (("d_in", 1), ("n_latents", 1), ("k", 1), ("dead_after", 1)):
            check_whole(name, getattr(self, name), minimum, f"Set CrosscoderConfig({name}=…).")
        for name, choices in (
            ("encoder", get_args(Encoder)),
            ("sparsity", SPARSITIES),
            ("l1_penalty", get_args(Penalty)),
        ):
            check_choice(name, getattr(self, name), choices, f"Set CrosscoderConfig({name}=…).")
        self._check_poses()
        count, most = self._selectable
        sparsity = sparsity_of(self.sparsity)
        if sparsity.uses_k and self.k > most:
            raise argument_error(
                "k",
                expected=f"at most {count} = {most}",
                got=self.k,
                remedy="Fewer active latents, or a larger dictionary.",
            )
        sparsity.check(self)
        if self.decoder_norm is None:
            object.__setattr__(self, "decoder_norm", "free" if sparsity.free_decoders else "unit")
        check_choice("decoder_norm", self.decoder_norm, get_args(DecoderNorm), "Set CrosscoderConfig(decoder_norm=…).")
        if self.aux_k is None:
            object.__setattr__(self, "aux_k", min(max(self.d_in // 2, 1), self.n_latents // 2))
        check_whole("aux_k", self.aux_k, 0, "Set CrosscoderConfig(aux_k=…).")
        if not 0 <= self.aux_coefficient < float("inf"):
            raise argument_error(
                "aux_coefficient", expected="a number >= 0", got=self.aux_coefficient, remedy="0 turns it off."
            )

    @property
    def n_atoms(self) -> int:
        """Directions in the dictionary: n_latents, times |G| where it is tied."""
        return self.n_latents * (parse_group(self.group).order if self.tied else 1)

    @property
    def _selectable(self) -> tuple[str, int]:
        """What can be active at once, and how many of them there are."""
        if self.pose == "max" and not self.tied:
            return "n_latents / |G|", self.n_latents // parse_group(self.group).order
        return ("n_atoms", self.n_atoms) if self.pose == "nms" else ("n_latents", self.n_latents)

    def _check_poses(self) -> None:
        if not isinstance(self.tied, bool) and self.tied != "residual":
            raise argument_error(
                "tied",
                expected='True, False or "residual"',
                got=repr(self.tied),
                remedy='True ties the poses, "residual" ties them in part.',
            )
        self._check_residual()
        if self.pose is None and self.tied:
            object.__setattr__(self, "pose", "max")
        if self.pose is not None:
            check_choice("pose", self.pose, get_args(Pose), "Set CrosscoderConfig(pose=…).")
            order = parse_group(self.group).order
            if not self.tied and self.n_latents % order:
                raise argument_error(
                    "n_latents",
                    expected=f"a multiple of |{self.group}| = {order} with pose={self.pose!r} and tied=False",
                    got=self.n_latents,
                    remedy="Latents then come as the |G| poses of one; pose=None takes each for itself.",
                )
        for name, value, most in (
            ("pose_distance", self.pose_distance, 180),
            ("pose_similarity", self.pose_similarity, 1),
        ):
            if not (is_real(value) and 0 <= value <= most):
                raise argument_error(
                    name, expected=f"a number from 0 to {most}", got=value, remedy=f"Set CrosscoderConfig({name}=…)."
                )

    def _check_residual(self) -> None:
        if self.tied == "residual" and self.residual_penalty is None:
            object.__setattr__(
                self, "residual_penalty", RESIDUAL_PENALTY * (parse_group(self.group).order * self.d_in) ** 0.5
            )
        penalty = self.residual_penalty
        if penalty is not None and not (self.tied == "residual" and is_real(penalty) and penalty >= 0):
            raise argument_error(
                "residual_penalty",
                expected='a number >= 0, with tied="residual" alone',
                got=f"{penalty!r} with tied={self.tied!r}",
                remedy='Leave it out for the default; float("inf") is as tied, 0 as untied.',
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as cfg.json holds them; JSON has no infinity, so that is the text "inf"."""
        values = dataclasses.asdict(self)
        if self.residual_penalty == float("inf"):
            values["residual_penalty"] = "inf"
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CrosscoderConfig:
        """The inverse of `to_dict`; an unknown key is an error."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise argument_error(
                "config",
                expected=f"keys among {', '.join(sorted(known))}",
                got=f"unknown {', '.join(unknown)}",
                remedy="The file may come from a newer groupcc; upgrade.",
            )
        if values.get("residual_penalty") == "inf":
            values = values | {"residual_penalty": float("inf")}
        return cls(**values)
