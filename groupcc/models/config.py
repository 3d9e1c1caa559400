"""CrosscoderConfig: what fixes a crosscoder's shape and its sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from groupcc import _defaults
from groupcc.errors import argument_error, check_choice, check_whole, is_real
from groupcc.groups import group as parse_group
from groupcc.models.forms import FORMS, POSES, form_kind, form_of
from groupcc.models.options import Options, fill
from groupcc.models.sparsity import SPARSITIES

__all__ = ["CrosscoderConfig"]

Encoder = Literal["identity", "orbit"]
Penalty = Literal["block_sum", "concat"]
DecoderNorm = Literal["unit", "free"]


@dataclass(frozen=True, kw_only=True)
class CrosscoderConfig:
    """Shape and sparsity of a [`GroupCrosscoder`][groupcc.GroupCrosscoder].

    Three of these the paper's text leaves open: `encoder` (which blocks it reads; the published code that we could read
    has "identity", the default "orbit" recovers two to three times as many planted atoms), `l1_penalty` (default
    "block_sum", Anthropic's crosscoders) and the order of its group "D32" (default reading: 32 rotations and 32
    reflections).

    - `group`: name of the group, or a Group; `"C1"` makes a standard sparse autoencoder.
    - `d_in`: activation width D. `n_latents`: dictionary size L.
    - `k`: active latents per example ("topk"), or on average over a batch ("batchtopk", "matryoshka"). "l1" and
      "jumprelu" have no use for k.
    - `encoder`: "identity" reads block 0 only, "orbit" reads all blocks.
    - `sparsity`: how latents are chosen: "topk", "batchtopk", "l1" (ReLU and a penalty), "jumprelu" (a learned
      threshold a latent), "matryoshka" (batchtopk, and prefixes of the dictionary reconstruct alone), or another kind
      of `groupcc.models.sparsity`. `sparsity_options`: settings that a kind declares for itself, by name.
    - `l1_coefficient`: λ of the penalty λ·Σ_l f_l·P(d_l); "l1" only, must then be positive.
    - `l1_penalty`: P(d) = Σ_g‖d_g‖ ("block_sum") or ‖d‖ over all blocks ("concat").
    - `aux_k`: dead latents that the auxiliary loss lets explain the residual (Gao et al. 2024); 0 is off; None is
      d_in / 2, at most n_latents / 2. `aux_coefficient`: its weight. `dead_after`: examples without firing after
      which a latent counts as dead; None is 100,000, and less in a training run of fewer than 7.5 million examples: a
      75th of them, and at least 10 batches.
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
    k: int = _defaults.K
    encoder: Encoder = _defaults.ENCODER
    sparsity: str = "topk"
    l1_coefficient: float = 0.0
    l1_penalty: Penalty = "block_sum"
    sparsity_options: Mapping[str, float | tuple[float, ...]] = Options({})
    aux_k: int | None = None
    aux_coefficient: float = 1 / 32
    dead_after: int | None = None
    decoder_norm: DecoderNorm | None = None
    tied: bool | str = False
    residual_penalty: float | None = None
    pose: str | None = None
    pose_distance: float = 15.0
    pose_similarity: float = 0.7

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", parse_group(self.group).name)
        for name, minimum in (("d_in", 1), ("n_latents", 1), ("k", 1), ("dead_after", 1)):
            if name == "dead_after" and self.dead_after is None:
                continue
            check_whole(name, getattr(self, name), minimum, _remedy(name))
        for name, choices in (
            ("encoder", get_args(Encoder)),
            ("sparsity", SPARSITIES),
            ("l1_penalty", get_args(Penalty)),
        ):
            check_choice(name, getattr(self, name), choices, _remedy(name))
        self._check_form()
        self._check_numbers()
        declared = self.form.sparsity.options
        object.__setattr__(self, "sparsity_options", fill(self.sparsity, declared, self.sparsity_options))
        count, most = self.form.selectable(self, parse_group(self.group))
        sparsity = self.form.sparsity
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
        check_choice("decoder_norm", self.decoder_norm, get_args(DecoderNorm), _remedy("decoder_norm"))
        if self.aux_k is None:
            object.__setattr__(self, "aux_k", min(max(self.d_in // 2, 1), self.n_latents // 2))
        check_whole("aux_k", self.aux_k, 0, _remedy("aux_k"))

    @property
    def form(self) -> Any:
        """The [`Form`][groupcc.models.forms.base.Form] of crosscoders of this configuration."""
        return form_of(self.tied, self.pose, self.sparsity)

    @property
    def n_atoms(self) -> int:
        """Directions in the dictionary: n_latents, times |G| if latents have poses."""
        return self.n_latents * int(self.form.n_poses(parse_group(self.group)))

    def _check_form(self) -> None:
        """Checks `tied` and `pose`, and fills in what the form makes of fields left at None."""
        if not any(self.tied is known or (isinstance(known, str) and self.tied == known) for known in FORMS):
            *others, last = (f'"{known}"' if isinstance(known, str) else str(known) for known in FORMS)
            raise argument_error(
                "tied",
                expected=f"{', '.join(others)} or {last}",
                got=repr(self.tied),
                remedy='True ties the poses, "residual" ties them in part.',
            )
        group = parse_group(self.group)
        form = form_kind(self.tied)
        for name, value in form.defaults(self, group).items():
            object.__setattr__(self, name, value)
        if self.pose is not None:
            check_choice("pose", self.pose, [pose for pose in POSES if pose is not None], _remedy("pose"))
        form.check(self, group)

    def _check_numbers(self) -> None:
        for name, value, most in (
            ("pose_distance", self.pose_distance, 180),
            ("pose_similarity", self.pose_similarity, 1),
        ):
            if not (is_real(value) and 0 <= value <= most):
                raise argument_error(name, expected=f"a number from 0 to {most}", got=value, remedy=_remedy(name))
        if not 0 <= self.aux_coefficient < float("inf"):
            raise argument_error(
                "aux_coefficient", expected="a number >= 0", got=self.aux_coefficient, remedy="0 turns it off."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as cfg.json holds them; JSON has no infinity, so that is the text "inf"."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["sparsity_options"] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.sparsity_options.items()
        }
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


def _remedy(name: str) -> str:
    return f"Set CrosscoderConfig({name}=…)."
