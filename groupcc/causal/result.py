"""What a causal check found: scores of each family, with controls and their errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groupcc.causal.scores import CONDITIONS, CONTROLS, SCORED, Scores, Tally
from groupcc.causal.verdict import NEVER_ACTIVE, Judgement, Verdict, is_negligible, judge
from groupcc.errors import DataError
from groupcc.files import canonical_hash, read_json, write_json
from groupcc.groups.arrays import FloatArray

__all__ = ["CONDITIONS", "CONTROLS", "FORMAT_VERSION", "CausalCheck", "FamilyEffect", "family_effect"]

FORMAT = "groupcc-causal"
FORMAT_VERSION = 2
"""2: place and pose have controls of their own. 1, without these, still loads."""

WITHOUT_CONTROLS = "checked before place and pose had controls of their own: run the causal check again"


@dataclass(frozen=True)
class FamilyEffect:
    """One family at one read-out.

    A score of 1 means that the network goes on as on the transformed image. 0 means that it does no better than with
    the family's average in place of its poses and places. None means that the score is not defined or not known.

    - `family`, `latents`: its number in `Families`, and how many latents (of a tied crosscoder base latents) it has.
    - `readout`: "output", or the later layer that was read. `positions`: how many were changed, all images together.
    - `effect`: mean squared change of the read-out without the family over its variance over the transformed images.
    - `reposed`, `measured`, `placed`, `turned`, `unmoved`, `wrong`, `random`: the scores. `reposed_error`: standard
      error (jackknife over images) of the first.
    - `pose_margin`: `reposed` less `placed`, so what moving the pose adds to moving the place. `margin`: `reposed`
      less the best of `placed`, `unmoved`, `wrong` and `random`. Their standard errors: `pose_margin_error`,
      `margin_error`.
    - `similarity`: the mean of cos(d_j, R_h d_l) weighted by act², d_j the member that took over and R_h d_l the
      translate asked for. 1 for a tied crosscoder; low if the family has a gap.
    - `verdict`, and `reason`: what else is to know of the verdict, if anything. "undecided" always has a reason.

    Intervals are of 95 % over images (Student's t). The verdicts:

        yes         `reposed` is above ½, and more than 0.05 above each of the four controls
        place only  `reposed` is above ½, and `placed` less than 0.05 below `reposed`: no sign that poses are used
        not read    without the family, and with its average, the read-out changes by at most 10⁻⁶ of its variance
        no          `reposed` is below ½ and `measured` above ½: the latents moved don't do what the image moved does
        undecided   any other: intervals that don't tell; fewer than three images on which the family makes a
                    difference; a dictionary whose error leaves no ceiling above ½; a low score where the average leaves
                    less than 1 % of the family's change: neither pose nor place makes a difference

    `turned` decides nothing: where it is as good as `reposed`, the network reads the pose but not the place. With
    encoder "orbit", `measured` of a tied crosscoder is `reposed` by construction. Whether the network or the dictionary
    is to blame for a low score can't be told there, and "no" is never reached.
    """

    family: int
    latents: int
    readout: str
    positions: int
    similarity: float | None
    effect: float | None
    reposed: float | None
    measured: float | None
    placed: float | None
    turned: float | None
    unmoved: float | None
    wrong: float | None
    random: float | None
    reposed_error: float | None
    pose_margin: float | None
    pose_margin_error: float | None
    margin: float | None
    margin_error: float | None
    verdict: Verdict
    reason: str | None


@dataclass(frozen=True)
class CausalCheck:
    """What `causal_check` returns.

    - `effects`: one `FamilyEffect` for each family and read-out. `elements`: names of the elements that images were
      transformed by. `images`: how many. `positions_per_image`: safe positions in each.
    - `crosscoder`, `families`: fingerprints of the weights and of the families that were checked, by which the check is
      known to belong to an atlas (`GroupCrosscoder.fingerprint`, `Families.fingerprint`).
    """

    effects: list[FamilyEffect]
    elements: list[str]
    images: int
    positions_per_image: int
    crosscoder: str
    families: str

    def table(self) -> list[dict[str, Any]]:
        """One row a family and read-out, plain values; None where unknown."""
        return [asdict(effect) for effect in self.effects]

    def save(self, path: str | Path) -> Path:
        """Writes `table()` and what it was measured on as JSON, in one rename."""
        path = Path(path)
        values = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        write_json(path, values | {"sha256": canonical_hash(values)})
        return path

    @classmethod
    def load(cls, path: str | Path) -> CausalCheck:
        """Reads what `save` wrote, in this version or an earlier one.

        A check of version 1 had no control that moves the place alone. So its "yes", "partly" and "unclear" are
        "undecided" here, and its "no" stays where the score itself was below 0.

        Raises:
            DataError: the file is missing, damaged, something else, or of a later version.
        """
        path = Path(path)
        try:
            values = read_json(path)
            stated, signed = values.pop("sha256", None), dict(values)
            named, version = values.pop("format", None), values.pop("format_version", None)
            if named != FORMAT or version not in range(1, FORMAT_VERSION + 1):
                raise DataError(
                    f"{path} is no {FORMAT!r} file of version 1 to {FORMAT_VERSION}, which this groupcc reads. "
                    "Run the causal check again."
                )
            # The check sum of version 1 was of the values alone.
            if stated != canonical_hash(values if version == 1 else signed):
                raise DataError(f"{path} is damaged. Run the causal check again.")
            read = _effect_of_version_1 if version == 1 else FamilyEffect
            return cls(**values | {"effects": [read(**effect) for effect in values["effects"]]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} holds no readable causal check ({error}). Run it again.") from error

    def text(self) -> str:
        """The table for a terminal."""
        lines = [
            f"{self.images} images, {self.positions_per_image} positions each; transforms: {', '.join(self.elements)}",
            "1: the network goes on as on the transformed image; 0: as with the family's average",
            "",
            _row("family", "latents", "effect", *SCORED, "used so") + "  read at",
        ]
        for e in self.effects:
            scores = [getattr(e, name) for name in SCORED]
            cells = [str(e.family), str(e.latents), _shown(e.effect), *map(_shown, scores), e.verdict]
            lines.append(f"{_row(*cells)}  {e.readout}" + (f" ({e.reason})" if e.reason else ""))
        return "\n".join(lines)


def _row(*cells: str) -> str:
    return " ".join(f"{cell:>8}" for cell in cells[:-1]) + f" {cells[-1]:>10}"


def _shown(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}" if abs(value) < 1e-2 else f"{value:.2f}"


def family_effect(
    family: int, latents: int, readout: str, tally: Tally, errors: FloatArray, variance: float
) -> FamilyEffect:
    """Returns the scores of one family at one read-out, with their errors and the verdict.

    `errors` and `variance` are as in [`Scores`][groupcc.causal.scores.Scores].
    """
    scores = Scores(errors, variance)
    judgement = judge(scores, tally)
    estimates = {name: scores.of(name) for name in SCORED}
    pose, margin = scores.above("placed"), scores.above(*CONTROLS)
    return FamilyEffect(
        family=family,
        latents=latents,
        readout=readout,
        positions=tally.changed,
        similarity=_number(tally.similarity),
        effect=_number(scores.change("ablated")),
        **{name: _number(estimate.value) for name, estimate in estimates.items()},
        reposed_error=_number(estimates["reposed"].error),
        pose_margin=_number(pose.value),
        pose_margin_error=_number(pose.error),
        margin=_number(margin.value),
        margin_error=_number(margin.error),
        verdict=judgement.verdict,
        reason=judgement.reason,
    )


def _effect_of_version_1(**values: Any) -> FamilyEffect:
    """What a file of version 1 says, with the verdict that its numbers allow."""
    added = dict.fromkeys(("placed", "turned", "pose_margin", "pose_margin_error"))
    verdict, reason = _judgement_of_version_1(values)
    return FamilyEffect(**values | added | {"verdict": verdict, "reason": reason})


def _judgement_of_version_1(values: dict[str, Any]) -> Judgement:
    reposed, error, effect = values["reposed"], values["reposed_error"], values["effect"]
    if values["positions"] == 0:
        return Judgement("undecided", NEVER_ACTIVE)
    if reposed is None and effect is not None and is_negligible(effect):
        return Judgement("not read")
    if reposed is not None and error is not None and values["verdict"] == "no" and reposed + 2 * error < 0:
        return Judgement("no")
    return Judgement("undecided", WITHOUT_CONTROLS)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
