"""What else the atlas's table says of a latent or a family, in sentences; what it does not know is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from groupcc.analysis import Coverage
from groupcc.groups.algebra import format_degrees
from groupcc.analysis.numbers import count_noun, percent, two_decimals

__all__ = ["differing", "estimates", "family_notes", "latent_notes", "overview_notes"]

Row = Mapping[str, Any]
ESTIMATES = {"stabilizer": "decoder", "stabilizer_encoder": "encoder", "stabilizer_activations": "activations"}
"""Columns with an estimate of the stabilizer, and what each is read off."""

MEASURED_ON = {
    "held-out": "on held-out images",
    "training": "on training images",
    "unknown": "on images that training may have seen",
}
"""Values of the column `activations_on`, in words."""

NAMED_GAPS = 3
"""Gaps of a family that its sentence names."""


def latent_notes(row: Row) -> list[str | Markup]:
    """Sentences on one latent, from its row of the table."""
    return [note for tell in (_evidence, _chirality, _tuning, _spare) for note in tell(row)]


def estimates(row: Row) -> list[tuple[str, str, bool]]:
    """(read off, stabilizer, whether it differs from the decoder's) where there are estimates to compare."""
    found = [(words, column) for column, words in ESTIMATES.items() if row.get(column)]
    if len(found) < 2:
        return []
    on = MEASURED_ON.get(row.get("activations_on") or "", "")
    return [
        (f"{words} {on}" if on and words == "activations" else words, row[column], row[column] != row["stabilizer"])
        for words, column in found
    ]


def differing(row: Row) -> str:
    """Which of the `estimates` differ from the decoder's, in words; empty where none does."""
    names = [words for column, words in ESTIMATES.items() if row.get(column) not in (None, row["stabilizer"])]
    return f"the {' and the '.join(names)} {'differs' if names == ['encoder'] else 'differ'}" if names else ""


def _evidence(row: Row) -> list[str | Markup]:
    found: list[str | Markup] = []
    if row.get("unclear"):
        found.append(f"Unclear: {row['unclear']}.")
    # Where that share is why it is unclear, the sentence above has it.
    if row.get("confidence") is not None and "resamples" not in (row.get("unclear") or ""):
        found.append(f"In {percent(row['confidence'])} of resamples of the images its stabilizer is the same.")
    if row.get("near_miss"):
        found.append(f"Near miss: {row['near_miss']}.")
    if row.get("broken"):
        found.append(f"Its symmetry is {row['broken']}.")
    return found


def _chirality(row: Row) -> list[str | Markup]:
    told = row.get("chirality")
    if told == "achiral":
        return []  # its mirror line is in the headline of the card
    if told == "no partner":
        return ["Chiral: its mirror image is not in the dictionary."]
    if told == "unclear":
        return ["Chiral; whether its mirror image occurs too is unclear."]
    if told != "partner":
        return []
    partner = row.get("mirror_partner")
    if partner is None or partner == row["latent"]:
        return ["Chiral: it fires on its mirror image too."]
    text = 'Chiral: <a href="#latent-{0}">latent {0}</a> is its mirror image (match {1}).'
    return [Markup(text).format(partner, two_decimals(row["mirror_similarity"]))]


def _tuning(row: Row) -> list[str | Markup]:
    if row.get("tuning") != "tuned" or row.get("tuning_width_degrees") is None:
        return []
    text = f"Half as alike after a turn of {format_degrees(round(row['tuning_width_degrees'], 1))}"
    measured = row.get("response_width_degrees")
    if measured is not None:
        text += f"; on its strongest examples it fires half as strongly after {format_degrees(round(measured, 1))}"
    return [f"{text}."]


def _spare(row: Row) -> list[str | Markup]:
    found: list[str | Markup] = []
    if row.get("spare"):
        found.append("Spare: it fires, but explains next to nothing, so its symmetry says little about the network.")
    if row.get("duplicate_of") is not None and "atoms" not in row:
        text = 'The same shape in the same pose as <a href="#latent-{0}">latent {0}</a>.'
        found.append(Markup(text).format(row["duplicate_of"]))
    return found


def family_notes(coverage: Coverage | None, cycle_error: float | None) -> list[str]:
    """Sentences on a family: orientations that no member detects, and whether the members' poses fit together."""
    found = []
    if coverage is not None and coverage.n_poses > 1:
        gaps = coverage.gaps
        if not gaps:
            found.append("Every orientation is near enough to a member’s to be detected.")
        elif coverage.covered > 0:
            named = [_gap(*gap) for gap in gaps[:NAMED_GAPS]]
            more = f" and {count_noun(len(gaps) - NAMED_GAPS, 'more gap')}" if len(gaps) > NAMED_GAPS else ""
            found.append(f"No member detects it {', '.join(named)}{more}.")
    if cycle_error is not None and cycle_error == cycle_error:
        fits = "fit together" if cycle_error == 0 else f"disagree in {percent(cycle_error)} of its pairs"
        found.append(f"The members’ poses {fits}.")
    return found


def _gap(mirrored: bool, first: float, last: float) -> str:
    first_words, last_words = (f"+{format_degrees(turn)}" if turn else "0°" for turn in (first, last))
    turn = f"at {first_words}" if first == last else f"from {first_words} to {last_words}"
    return f"mirrored and {turn}" if mirrored else turn


def overview_notes(table: Sequence[Row]) -> list[tuple[str, str]]:
    """(what, how many) over all live latents: chiral, unclear, broken, with near misses; only what was measured."""
    live = [row for row in table if row["kind"] != "dead"]
    chirality = Counter(row.get("chirality") for row in live)
    chiral = sum(chirality[told] for told in ("partner", "no partner", "unclear"))
    found = []
    if chiral + chirality["achiral"]:
        partners = f"{chirality['partner']:,} of them with their mirror image" if chirality["partner"] else ""
        found.append(("chiral", f"{chiral:,}" + (f" ({partners})" if partners else "")))
    for column, words in (("unclear", "unclear"), ("broken", "broken symmetry"), ("near_miss", "near misses")):
        if live and column in live[0]:
            found.append((words, f"{sum(bool(row[column]) for row in live):,}"))
    for column, words in (
        ("stabilizer_activations", "activations disagree"),
        ("stabilizer_encoder", "encoder disagrees"),
    ):
        told = [row[column] != row["stabilizer"] for row in live if row.get(column)]
        if told:
            seen = next((row.get("activations_on") for row in live if row.get(column)), None)
            on = f", {MEASURED_ON[seen]}" if seen and column == "stabilizer_activations" else ""
            found.append((words, f"{sum(told):,} of {len(told):,}{on}"))
    return found
