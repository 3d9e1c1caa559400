"""What a causal check found, on the page: sentences, where they stand, and checks that belong to another atlas."""

from __future__ import annotations

import dataclasses
import re

import pytest

from groupcc.analysis.atlas import Atlas
from groupcc.causal import CausalCheck
from groupcc.errors import ArgumentError
from groupcc.report import write_report
from groupcc.report.parts.causal import CONTROLS
from helpers.report_samples import drawn, effect, shape_atlas, tied_atlas

QUESTION = "Does the network use it so"


def check(atlas: Atlas, *effects, images: int = 5, **others) -> CausalCheck:
    known = {"crosscoder": str(atlas.crosscoder), "families": atlas.families.fingerprint()} | others
    return CausalCheck(list(effects), ["90°", "m·90°"], images, 20, **known)


def part(text: str, start: str, end: str) -> str:
    """The words between two marks of a drawn page."""
    inside = text[text.index(start) :]
    return " ".join(re.sub(r"<[^>]*>", " ", inside[: inside.index(end)]).split())


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return shape_atlas("D8", {"line": 4, "curve": 5, "circle": 1})


@pytest.fixture
def page(tmp_path):
    def write(atlas: Atlas, *effects, images: int = 5, **options) -> str:
        path = write_report(tmp_path / "r.html", atlas, causal=check(atlas, *effects, images=images), **options)
        return drawn(path.read_text(encoding="utf-8"))

    return write


def family_card(text: str, family: int) -> str:
    return part(text, f'id="family-{family}"', "</article>")


def latent_card(text: str, latent: int) -> str:
    return part(text, f'id="latent-{latent}">', '<details class="all-numbers">')


def test_the_line_on_a_family_s_card_and_nowhere_else(atlas, page):
    text = page(atlas, effect(1, "yes"))
    card = family_card(text, 1)
    assert f"{QUESTION}? Yes." in card
    told = ["0.48 ± 0.17", "ceiling 0.62", "place moved alone 0.20", "pose moved alone −0.04", "neither moved 0.11"]
    told += ["transform −0.01", "in its place −1.03", "by 0.5 %"]
    assert [words for words in told if words not in card] == []
    assert QUESTION not in family_card(text, 0)
    assert all(QUESTION not in latent_card(text, latent) for latent in range(10))


def test_several_readouts_are_named(atlas, page):
    card = family_card(page(atlas, effect(0, "yes"), effect(0, "no", "late.r")), 0)
    assert f"{QUESTION}, at the output? Yes." in card
    assert f"{QUESTION}, at late.r? No." in card
    assert "the output changes" in card
    assert "late.r changes" in card


NONE = dict.fromkeys(("reposed", "measured", *CONTROLS, "reposed_error"))


def test_a_family_that_is_not_read(atlas, page):
    card = family_card(page(atlas, dataclasses.replace(effect(0, "not read"), effect=0.0, **NONE)), 0)
    assert f"{QUESTION}? Not read. Without the family, the output stays as it is on these images." in card
    assert "Score" not in card


def test_place_only_says_what_follows(atlas, page):
    card = family_card(page(atlas, effect(0, "place only")), 0)
    assert f"{QUESTION}? Place only. Score 0.48" in card
    assert "Moving the place alone does as well, so nothing shows that poses are used." in card
    assert "nothing shows" not in family_card(page(atlas, effect(0, "yes")), 0)


def test_undecided_says_why(atlas, page):
    few = dataclasses.replace(effect(0, "undecided"), reposed_error=None, reason="active on 2 images, too few")
    card = family_card(page(atlas, few, images=2), 0)
    assert f"{QUESTION}? Undecided. Score 0.48, ceiling 0.62." in card
    assert "Active on 2 images, too few." in card
    silent = dataclasses.replace(effect(0, "undecided"), effect=0.0, reason="never active on these images", **NONE)
    card = family_card(page(atlas, silent), 0)
    assert f"{QUESTION}? Undecided. Never active on these images." in card
    assert "changes by" not in card


def test_a_check_of_before_has_fewer_controls(atlas, page):
    before = dataclasses.replace(effect(0, "undecided"), placed=None, turned=None)
    card = family_card(page(atlas, before), 0)
    assert "Controls: neither moved 0.11, moved by another transform −0.01, other latents" in card


@pytest.mark.parametrize("limit", [0, 1])
def test_a_family_without_a_card_has_its_line_on_its_reference_s(atlas, page, limit):
    """The circle is alone in its family; the smaller of the others is left out by the limit."""
    line, alone = int(atlas.families.labels[0]), int(atlas.families.labels[9])
    text = page(atlas, effect(line, "no"), effect(alone, "yes"), max_families=limit)
    assert f"{QUESTION}? Yes." in latent_card(text, 9)
    reference = atlas.families.references[line]
    told = [latent for latent in range(4) if f"{QUESTION}? No." in latent_card(text, latent)]
    assert told == [reference]
    assert "Without the family" in latent_card(text, 9)


def test_base_latents_of_a_tied_crosscoder(page):
    """Their families are not the shapes learned more than once, whose cards have numbers of their own."""
    atlas = tied_atlas("D8", ("circle", "line", "curve", "curve", "spiral"))
    duplicates = dataclasses.replace(
        atlas.duplicates, labels=atlas.families.labels.new_tensor([1, 2, 0, 0, 3]), references=[2, 0, 1, 4]
    )
    atlas = dataclasses.replace(atlas, duplicates=duplicates)
    assert atlas.families.references == [4, 2, 3, 1, 0]
    text = page(atlas, effect(0, "place only"), effect(3, "yes"))
    assert [latent for latent in range(5) if QUESTION in latent_card(text, latent)] == [1, 4]
    assert "Without the latent" in latent_card(text, 4)
    assert QUESTION not in family_card(text, 0)
    assert "Checked for 2 base latents" in text


def test_the_overview_counts_answers_at_the_output(atlas, page):
    verdicts = ("undecided", "no", "place only")
    effects = [effect(family, verdict) for family, verdict in enumerate(verdicts)]
    effects.insert(1, effect(0, "yes", "late.r"))
    text = page(atlas, *effects)
    overview = part(text, '<section class="overview"', "</section>")
    assert "use them so? Checked for 3 families" in overview
    assert ": place only for 1, no for 1, undecided for 1." in overview
    words = part(text, '<details class="words">', "</details>")
    assert "5 images: turned 90°, mirrored" in words
    overview = part(page(atlas, effect(1, "yes")), '<section class="overview"', "</section>")
    assert "use it so? Checked for 1 family" in overview
    assert ": yes for 1." in overview


def test_without_a_check_the_page_does_not_ask(atlas, tmp_path):
    text = write_report(tmp_path / "r.html", atlas).read_text(encoding="utf-8")
    assert "use it so" not in text
    assert "use them so" not in text


def test_a_check_of_another_atlas_is_refused(atlas, tmp_path):
    def write(causal, of=atlas):
        return write_report(tmp_path / "r.html", of, causal=causal)

    with pytest.raises(ArgumentError, match=r"causal: expected .* got one of other families"):
        write(check(shape_atlas("D8", {"line": 5, "curve": 4, "circle": 1}), effect(0, "yes")))
    with pytest.raises(ArgumentError, match="got one of another crosscoder"):
        write(check(atlas, effect(0, "yes"), crosscoder="0" * 64))
    with pytest.raises(ArgumentError, match="got one of other families"):
        write({"effects": []})
    assert not (tmp_path / "r.html").exists()
    # An atlas of before weights had a fingerprint in it: its families alone can tell.
    write(check(atlas, effect(0, "yes"), crosscoder="0" * 64), dataclasses.replace(atlas, crosscoder=None))


def test_text_of_a_check_is_escaped(atlas, page):
    card = page(atlas, effect(0, "yes"), effect(0, "no", "<b>late</b>"))
    assert "<b>late</b>" not in card
    assert "&lt;b&gt;late" in card


def test_a_share_below_the_least_that_is_shown(atlas, page):
    card = family_card(page(atlas, dataclasses.replace(effect(0, "no"), effect=1e-5)), 0)
    assert "by less than 0.1 %" in card


def test_gaps_stand_between_the_heading_and_the_line(atlas, page):
    card = family_card(page(atlas, effect(1, "yes")), 1)
    places = [card.index(words) for words in ("one pattern at", "fit together", QUESTION, "0°")]
    assert places == sorted(places)


def test_numbers_of_a_latent_s_card_say_what_they_are_of(atlas, page):
    text = page(atlas, effect(1, "yes"))
    assert "itself when turned 45°" in latent_card(text, 0)
