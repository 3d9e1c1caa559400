"""Degenerate dictionaries through the public interface: clear results in table, file and page, or a clear error."""

from __future__ import annotations

import csv
import json
import math

import pytest
import torch

import groupcc

GROUPS = ("D1", "C2", "D6")
KINDS = ("untied", "tied", "residual")
D_IN, EXAMPLES = 6, 40


def crosscoder_of(group, W_dec, kind="untied", encoder="orbit", k=2):
    """A crosscoder with decoders W_dec [L, G, D] and their transpose for an encoder."""
    L, _, d_in = W_dec.shape
    tied = {"untied": False, "tied": True, "residual": "residual"}[kind]
    config = groupcc.CrosscoderConfig(
        group=group, d_in=d_in, n_latents=L, k=min(k, L), encoder=encoder, tied=tied, dead_after=10
    )
    made = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        made.W_dec.copy_(W_dec)
        made.W_enc.copy_(W_dec[:, : made.W_enc.shape[1]])
    return made.eval()


def random_blocks(group, latents, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(latents, groupcc.group(group).order, D_IN, generator=generator)


def orbits_of(W_dec, seed=1):
    """Orbits in which one latent at a time is present, and noise."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.arange(EXAMPLES) % len(W_dec)
    return W_dec[which] + 0.05 * torch.randn(EXAMPLES, *W_dec.shape[1:], generator=generator)


def every_way(atlas, tmp_path):
    """The atlas's rows, which a file and both tables give back, and which the page can show."""
    rows = atlas.table()
    assert len(rows) == atlas.n_latents
    numbers = [value for row in rows for value in row.values() if isinstance(value, float)]
    assert all(math.isfinite(number) for number in numbers), rows
    again = groupcc.Atlas.load(atlas.save(tmp_path / "atlas"))
    assert again.table() == rows
    assert again.kind_counts == atlas.kind_counts
    assert json.loads(atlas.write_table(tmp_path / "table.json").read_text(encoding="utf-8")) == rows
    with atlas.write_table(tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        assert [row["kind"] for row in csv.DictReader(file)] == [row["kind"] for row in rows]
    page = tmp_path / "report.html"
    again.report(page)
    text = page.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>")
    # Numbers that came to nothing would be written so.
    for wrong in (">nan", "nan%", "nan °", "NaN", ">inf", ">None<"):
        assert wrong not in text, wrong
    return rows


@pytest.mark.parametrize("with_orbits", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_a_single_latent(group, kind, with_orbits, tmp_path):
    W_dec = random_blocks(group, 1)
    orbits = orbits_of(W_dec) if with_orbits else None
    atlas = groupcc.analyze(crosscoder_of(group, W_dec, kind), orbits, scaling=with_orbits)
    (row,) = every_way(atlas, tmp_path)
    assert row["kind"] != "dead"
    assert row["family"] == 0
    assert len(atlas.families) == 1
    assert row["mirror_partner"] in (None, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_one_example_and_one_channel(kind, tmp_path):
    W_dec = random_blocks("D4", 2)[..., :1]
    atlas = groupcc.analyze(crosscoder_of("D4", W_dec, kind), W_dec[:1], scaling=True)
    every_way(atlas, tmp_path)


@pytest.mark.parametrize("with_orbits", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_every_latent_dead(group, kind, with_orbits, tmp_path):
    W_dec = torch.zeros_like(random_blocks(group, 3))
    orbits = orbits_of(random_blocks(group, 3)) if with_orbits else None
    atlas = groupcc.analyze(crosscoder_of(group, W_dec, kind), orbits, scaling=with_orbits)
    rows = every_way(atlas, tmp_path)
    assert [row["kind"] for row in rows] == ["dead"] * 3
    assert atlas.dead.all()
    assert len(atlas.families) == 0
    assert [row["period_degrees"] for row in rows] == [None] * 3
    assert [row["chirality"] for row in rows] == [None] * 3
    assert not atlas.spectrum.any()
    assert not atlas.autocorrelation.isnan().any()


@pytest.mark.parametrize("kind", KINDS)
def test_some_dead_latents_change_nothing_for_the_others(kind, tmp_path):
    W_dec = random_blocks("D4", 4)
    alone = groupcc.analyze(crosscoder_of("D4", W_dec, kind), tolerance=0.15)
    mixed = torch.stack([torch.zeros_like(W_dec[0]), *W_dec[:2], torch.zeros_like(W_dec[0]), *W_dec[2:]])
    atlas = groupcc.analyze(crosscoder_of("D4", mixed, kind), tolerance=0.15)
    rows, live = every_way(atlas, tmp_path), [1, 2, 4, 5]
    assert atlas.dead.nonzero().flatten().tolist() == [0, 3]
    for row, expected in zip((rows[i] for i in live), alone.table(), strict=True):
        told = ("kind", "stabilizer", "label", "score", "modulation", "period_degrees", "chirality", "mirror_score")
        assert [row[name] for name in told] == [expected[name] for name in told]


@pytest.mark.parametrize("kind", KINDS)
def test_a_latent_that_never_fires(kind, tmp_path):
    W_dec = random_blocks("D4", 3)
    made = crosscoder_of("D4", W_dec, kind)
    with torch.no_grad():
        made.b_enc[1] = -1e3
    atlas = groupcc.analyze(made, orbits_of(W_dec), scaling=True)
    rows = every_way(atlas, tmp_path)
    assert rows[1]["kind"] == "dead"
    assert rows[1]["frequency"] == 0
    assert rows[1]["response_width_degrees"] is None
    assert rows[0]["kind"] != "dead"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_fires_at_all(kind, tmp_path):
    W_dec = random_blocks("D4", 3)
    made = crosscoder_of("D4", W_dec, kind)
    with torch.no_grad():
        made.b_enc.fill_(-1e3)
    atlas = groupcc.analyze(made, orbits_of(W_dec), scaling=True)
    assert [row["kind"] for row in every_way(atlas, tmp_path)] == ["dead"] * 3
    assert atlas.metrics["dead_fraction"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_zero_blocks(kind, tmp_path):
    # All blocks but one, then all but the rotations, then a block at random.
    W_dec = random_blocks("D4", 3)
    W_dec[0, 1:] = 0
    W_dec[1, 4:] = 0
    W_dec[2, 5] = 0
    atlas = groupcc.analyze(crosscoder_of("D4", W_dec, kind), orbits_of(W_dec), scaling=True)
    rows = every_way(atlas, tmp_path)
    assert not atlas.dead.any()
    # A single block overlaps with no translate of itself.
    torch.testing.assert_close(atlas.autocorrelation[0], torch.eye(8)[0])
    assert (rows[0]["stabilizer"], rows[0]["period_degrees"]) == ("C1", 360.0)
    torch.testing.assert_close(atlas.similarity(0), torch.diag(torch.eye(8)[0]), atol=1e-3, rtol=0)
    assert atlas.block_norms[1, 4:].abs().max() == 0


@pytest.mark.parametrize("with_orbits", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_trivial_group(kind, with_orbits, tmp_path):
    W_dec = random_blocks("C1", 5)
    orbits = orbits_of(W_dec) if with_orbits else None
    atlas = groupcc.analyze(crosscoder_of("C1", W_dec, kind), orbits, scaling=with_orbits)
    rows = every_way(atlas, tmp_path)
    # Under one transform nothing can be said of symmetry: no latent is called invariant.
    assert {row["kind"] for row in rows} == {"none"}
    assert {row["stabilizer"] for row in rows} == {"C1"}
    assert {row["period_degrees"] for row in rows} == {360.0}
    assert {(row["tuning"], row["chirality"], row["tuning_width_degrees"]) for row in rows} == {(None, None, None)}
    assert atlas.spectrum.tolist() == [[1.0]] * 5


@pytest.mark.parametrize("with_orbits", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", GROUPS)
def test_identical_latents(group, kind, with_orbits, tmp_path):
    W_dec = random_blocks(group, 1).expand(5, -1, -1).clone()
    orbits = orbits_of(W_dec) if with_orbits else None
    made = crosscoder_of(group, W_dec, kind, k=5)
    atlas = groupcc.analyze(made, orbits, scaling=with_orbits)
    rows = every_way(atlas, tmp_path)
    searched = atlas.families if kind == "untied" else atlas.duplicates
    assert searched.labels.tolist() == [0] * 5
    assert searched.poses.tolist() == [0] * 5
    assert searched.similarity_to_reference.min() > 0.999
    assert len({(row["kind"], row["label"], row["period_degrees"]) for row in rows}) == 1
    if kind == "untied":
        # Five copies of one latent are no mirror images of one another.
        assert {row["mirror_partner"] for row in rows} == {None}


@pytest.mark.parametrize("kind", KINDS)
def test_identical_blocks_are_invariant(kind, tmp_path):
    W_dec = random_blocks("D8", 2)[:, :1].expand(-1, 16, -1).clone()
    atlas = groupcc.analyze(crosscoder_of("D8", W_dec, kind), orbits_of(W_dec), scaling=True)
    rows = every_way(atlas, tmp_path)
    assert [(row["kind"], row["period_degrees"], row["tuning"]) for row in rows] == [("invariant", 0.0, "flat")] * 2
    assert [row["chirality"] for row in rows] == ["achiral"] * 2


@pytest.mark.parametrize("scale", [1e-20, 1e15])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_and_huge_weights_are_read_alike(kind, scale, tmp_path):
    W_dec = random_blocks("D4", 4)
    W_dec[3] = W_dec[2, torch.from_numpy(groupcc.group("D4").right_translation[5].copy())]
    told = ("kind", "label", "score", "family", "pose", "period_degrees", "chirality", "mirror_partner")
    expected = groupcc.analyze(crosscoder_of("D4", W_dec, kind), tolerance=0.15).table()
    rows = every_way(groupcc.analyze(crosscoder_of("D4", W_dec * scale, kind), tolerance=0.15), tmp_path)
    for row, other in zip(rows, expected, strict=True):
        assert [row[name] for name in told] == pytest.approx([other[name] for name in told])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_numbers_in_the_decoder_are_an_error_that_names_the_latent(kind, value):
    W_dec = random_blocks("D4", 6)
    W_dec[4, 2, 1] = value
    with pytest.raises(groupcc.errors.ArgumentError, match=r"W_dec.*NaN or infinity in 1 latents.*latent 4"):
        groupcc.analyze(crosscoder_of("D4", W_dec, kind))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((kind, name) for kind in KINDS for name in ("W_enc", "b_enc", "b_dec", "threshold")),
        *(("residual", f"residual_{name}") for name in ("W_dec", "W_enc", "b_enc", "b_dec")),
    ],
)
def test_bad_numbers_elsewhere_in_the_weights_are_an_error_that_names_them(kind, name, value):
    W_dec = random_blocks("D4", 3)
    made = crosscoder_of("D4", W_dec, kind)
    with torch.no_grad():
        getattr(made, name)[(0,) * getattr(made, name).dim()] = value
    for orbits in (None, orbits_of(W_dec)):
        with pytest.raises(groupcc.errors.ArgumentError, match=rf"{name}.*NaN or infinity"):
            groupcc.analyze(made, orbits)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_numbers_in_the_orbits_are_an_error_that_names_the_row(kind):
    W_dec = random_blocks("D4", 3)
    orbits = orbits_of(W_dec)
    orbits[17, 3, 2] = math.nan
    with pytest.raises(groupcc.errors.ArgumentError, match=r"row 17"):
        groupcc.analyze(crosscoder_of("D4", W_dec, kind), orbits)


@pytest.mark.parametrize("kind", KINDS)
def test_orbits_of_zeros_or_all_alike(kind, tmp_path):
    W_dec = random_blocks("D4", 3)
    made = crosscoder_of("D4", W_dec, kind)
    silent = groupcc.analyze(made, torch.zeros(8, 8, D_IN), scaling=True)
    assert {row["kind"] for row in every_way(silent, tmp_path)} == {"dead"}
    alike = groupcc.analyze(made, W_dec[:1].expand(8, -1, -1), scaling=True)
    assert alike.metrics["fvu"] is None
    assert every_way(alike, tmp_path)[0]["kind"] != "dead"


def test_no_latents_is_refused():
    with pytest.raises(groupcc.errors.ArgumentError, match="n_latents"):
        groupcc.CrosscoderConfig(group="D4", d_in=3, n_latents=0, k=1)
