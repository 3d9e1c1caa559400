"""What a causal check found: scores of each family, with controls and their errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from groupcc.errors import DataError
from groupcc.files import canonical_hash, read_json, write_json
from groupcc.groups.arrays import FloatArray

__all__ = ["CONDITIONS", "CONTROLS", "CausalCheck", "FamilyEffect", "family_effect"]

FORMAT = "groupcc-causal"
FORMAT_VERSION = 1

CONDITIONS = ("ablated", "averaged", "reposed", "measured", "unmoved", "wrong", "random")
"""What stands in the family's place at the layer; see `causal_check`."""

SCORED = CONDITIONS[2:]
CONTROLS = ("unmoved", "wrong", "random")

Verdict = Literal["yes", "partly", "no", "unclear"]


@dataclass(frozen=True)
class FamilyEffect:
    """One family at one read-out.

    A score of 1 means that the network goes on as on the transformed image. 0 means that it does no better than with
    the family's average in place of its poses and places. None means that taking the family out changes nothing.

    - `family`, `latents`: its number in `Families`, and how many latents (of a tied crosscoder base latents) it has.
    - `readout`: "output", or the later layer that was read. `positions`: how many were changed, all images together.
    - `effect`: mean squared change of the read-out without the family over its variance over the transformed images.
    - `reposed`, `measured`, `unmoved`, `wrong`, `random`: the scores. `reposed_error`: standard error (jackknife over
      images) of the first. `margin`: `reposed` less the best control; `margin_error`: its standard error.
    - `similarity`: the mean of cos(d_j, R_h d_l) weighted by act², d_j the member that took over and R_h d_l the
      translate asked for. 1 for a tied crosscoder; low if the family has a gap.
    - `verdict`: "yes" if `reposed` is above ½ and above every control, "partly" if it is above 0 and every control,
      "no" if it is below either, each by two standard errors. Otherwise, and with fewer than 3 images, "unclear".
    """

    family: int
    latents: int
    readout: str
    positions: int
    similarity: float | None
    effect: float | None
    reposed: float | None
    measured: float | None
    unmoved: float | None
    wrong: float | None
    random: float | None
    reposed_error: float | None
    margin: float | None
    margin_error: float | None
    verdict: Verdict


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
        values = asdict(self)
        write_json(
            path, {"format": FORMAT, "format_version": FORMAT_VERSION, **values, "sha256": canonical_hash(values)}
        )
        return path

    @classmethod
    def load(cls, path: str | Path) -> CausalCheck:
        """Reads what `save` wrote. DataError if it is missing, damaged, something else, or of another version."""
        path = Path(path)
        try:
            values = read_json(path)
            if values.pop("format", None) != FORMAT or values.pop("format_version", None) != FORMAT_VERSION:
                raise DataError(
                    f"{path} is no {FORMAT!r} file of version {FORMAT_VERSION}, which this groupcc reads. "
                    "Run the causal check again."
                )
            if values.pop("sha256") != canonical_hash(values):
                raise DataError(f"{path} is damaged. Run the causal check again.")
            return cls(**values | {"effects": [FamilyEffect(**effect) for effect in values["effects"]]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} holds no readable causal check ({error}). Run it again.") from error

    def text(self) -> str:
        """The table for a terminal."""
        lines = [
            f"{self.images} images, {self.positions_per_image} positions each; transforms: {', '.join(self.elements)}",
            "1: the network goes on as on the transformed image; 0: as with the family's average",
            "",
            " ".join(f"{name:>9}" for name in ("family", "latents", "effect", *SCORED, "moves so")) + "  read at",
        ]
        for e in self.effects:
            scores = [getattr(e, name) for name in SCORED]
            cells = [str(e.family), str(e.latents), _shown(e.effect), *map(_shown, scores), e.verdict]
            lines.append(" ".join(f"{cell:>9}" for cell in cells) + f"  {e.readout}")
        return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g}" if abs(value) < 1e-2 else f"{value:.2f}"


def family_effect(
    family: int, latents: int, readout: str, positions: int, similarity: float, errors: FloatArray, variance: float
) -> FamilyEffect:
    """The scores of one family at one read-out, with their errors and the verdict.

    `errors` [images, conditions]: sums of squares between a read-out and the intact one, summed over elements.
    `variance`: the sum of squares of the intact read-outs about their mean.
    """
    total = errors.sum(0)
    base = CONDITIONS.index("averaged")
    if total[base] <= 1e-12 * variance:
        unknown: dict[str, Any] = dict.fromkeys((*SCORED, "reposed_error", "margin", "margin_error"))
        effect = _number(float(total[0]) / variance if variance > 0 else 0.0)
        return FamilyEffect(
            family, latents, readout, positions, _number(similarity), effect, **unknown, verdict="unclear"
        )
    scores = dict(zip(CONDITIONS, (1.0 - total / total[base]).tolist(), strict=True))
    without = total - errors  # the sums without each image in turn
    without = without[without[:, base] > 0]
    left = dict(zip(CONDITIONS, (1.0 - without / without[:, [base]]).T, strict=True))
    margins = left["reposed"] - np.max([left[name] for name in CONTROLS], axis=0)
    margin = scores["reposed"] - max(scores[name] for name in CONTROLS)
    reposed, error, margin_error = scores["reposed"], _jackknife(left["reposed"]), _jackknife(margins)
    verdict: Verdict = "unclear"
    if min(reposed - 2 * error, margin - 2 * margin_error) > 0:
        verdict = "yes" if reposed - 2 * error > 0.5 else "partly"
    elif min(reposed + 2 * error, margin + 2 * margin_error) < 0:
        verdict = "no"
    return FamilyEffect(
        family=family,
        latents=latents,
        readout=readout,
        positions=positions,
        similarity=_number(similarity),
        effect=_number(float(total[0]) / variance if variance > 0 else math.nan),
        **{name: scores[name] for name in SCORED},
        reposed_error=_number(error),
        margin=margin,
        margin_error=_number(margin_error),
        verdict=verdict,
    )


def _jackknife(left_out: FloatArray) -> float:
    """Standard error of a statistic from its values without each image in turn; NaN below three images."""
    n = len(left_out)
    return math.sqrt((n - 1) / n * float(np.square(left_out - left_out.mean()).sum())) if n > 2 else math.nan


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
