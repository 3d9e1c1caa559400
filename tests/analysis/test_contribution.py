"""Contribution: what the error gains where a latent is left out, and which latents are spare."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, analyze
from groupcc.analysis import SPARE, Atlas, calibrate_tolerance, measure_activity
from groupcc.models import SparseLatents
from groupcc.report.words import headline
from groupcc.zoo.planted import planted
from helpers.dictionaries import SPARES, with_spares
from helpers.training_samples import make


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sparsity": "batchtopk"},
        {"tied": True, "n_latents": 4},
        {"tied": True, "n_latents": 3, "pose": "nms", "pose_distance": 0.0, "k": 4},
        {"tied": "residual", "n_latents": 4},
    ],
    ids=str,
)
def test_share_is_what_leaving_out_costs(options):
    """Against the definition: every firing left out by itself, and the example decoded again."""
    crosscoder = make(**options).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in crosscoder.named_parameters():
            if name != "W_dec":
                parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
    G, D = crosscoder.group.order, crosscoder.config.d_in
    acts = torch.randn(40, G, D, generator=generator)
    b_dec = (crosscoder.untie() if crosscoder.config.tied else crosscoder).b_dec.detach()
    latents = crosscoder.encode(acts)

    def errors(latents: SparseLatents) -> torch.Tensor:
        return (acts - crosscoder.decode(latents)).detach().double().flatten(1).square().sum(1)

    L = crosscoder.config.n_latents
    gain, fired, whole = torch.zeros(L).double(), torch.zeros(L), errors(latents)
    for column in range(latents.indices.shape[1]):
        without = latents.acts.clone()
        without[:, column] = 0
        gained = errors(latents._replace(acts=without)) - whole
        for row in (latents.acts[:, column] > 0).nonzero()[:, 0].tolist():
            gain[latents.indices[row, column]] += gained[row]
            fired[latents.indices[row, column]] += 1
    assert (gain > 0).any()
    expected = gain / fired / (acts - b_dec).double().square().sum() * len(acts)
    found = measure_activity(crosscoder, acts, batch_size=16).contribution
    torch.testing.assert_close(found.share, expected.float(), rtol=1e-4, atol=1e-5, equal_nan=True)
    weight = gain.clamp_min(0)
    typical = float((weight * expected.nan_to_num()).sum() / weight.sum())
    assert found.typical == pytest.approx(typical, rel=1e-4)
    assert found.spare.tolist() == (expected < SPARE * typical).tolist()


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_spare_latents_are_those_beyond_the_truth(noise):
    """An atom that is active once is not spare; what fires in every example is, where it explains nothing."""
    truth, crosscoder = with_spares()
    A = len(truth.atoms)
    _, active = truth.sample(400, n_active=2, seed=5)
    rare = int(active.indices[0, 0])
    once = (active.indices == rare).any(1)
    once[0] = False
    acts, _ = truth.sample(400, n_active=2, noise=noise, seed=5)
    atlas = analyze(crosscoder, acts[~once])
    assert atlas.contribution.spare.tolist() == [False] * A + [True] * SPARES
    if not noise:
        assert round(float(atlas.frequency[rare]) * int((~once).sum())) == 1
    assert float(atlas.frequency[A:].sum()) > (0.1 if noise else 0.9)
    assert not atlas.dead.any()
    # Each of two atoms of like strength explains about half of what there is.
    assert atlas.contribution.typical == pytest.approx(0.5, abs=0.15)


def test_spare_latents_are_in_no_family_and_have_no_say(tmp_path):
    truth, crosscoder = with_spares()
    A = len(truth.atoms)
    acts, _ = truth.sample(400, n_active=2, seed=5)
    atlas = analyze(crosscoder, acts)
    assert (atlas.families.labels[A:] == -1).all()
    assert (atlas.families.labels[:A] >= 0).all()
    assert atlas.tolerance == calibrate_tolerance(atlas.autocorrelation[:A], atlas.group)
    assert atlas.tolerance != calibrate_tolerance(atlas.autocorrelation, atlas.group)
    assert sum(atlas.families.sizes) == A
    rows = atlas.table()
    assert [row["spare"] for row in rows] == [False] * A + [True] * SPARES
    for row in rows:
        missing = [row[name] is None for name in ("family", "family_size", "pose", "similarity_to_reference")]
        assert missing == [row["spare"]] * 4
        assert row["contribution"] == pytest.approx(float(atlas.contribution.share[row["latent"]]), abs=1e-6)
        assert row["kind"] != "dead"
    assert any("3 are spare" in sentence for sentence in headline(atlas))
    again = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert again.table() == rows
    assert again.contribution.typical == atlas.contribution.typical
    # The weights alone do not show it.
    of_weights = analyze(crosscoder)
    assert of_weights.contribution is None
    assert "spare" not in of_weights.table()[0]
    assert (of_weights.families.labels >= 0).all()


def test_a_spare_latent_has_its_mirror_image_too():
    """Chirality is about all latents that fire: what it reads has the spare ones in it, as families do not."""
    truth, crosscoder = with_spares()
    A = len(truth.atoms)
    chiral = analyze(crosscoder).tuning.mirrors.partner[:A].argmax()
    with torch.no_grad():
        crosscoder.W_dec[A] = truth.atoms[chiral]
    atlas = analyze(crosscoder, truth.sample(400, n_active=2, seed=5)[0])
    assert atlas.contribution.spare.tolist() == [False] * A + [True] * SPARES
    assert atlas.tuning.mirrors.partner[A] == atlas.tuning.mirrors.partner[chiral] >= 0


def test_a_spare_base_latent_is_no_ones_duplicate():
    """Of a tied crosscoder: three base latents of one shape, the last of which is only ever a sliver."""
    truth = planted("D4", d_in=24, n_latents=1, stabilizers=["C1"], seed=2)
    config = CrosscoderConfig(group="D4", d_in=24, n_latents=3, k=3, encoder="orbit", tied=True)
    crosscoder = GroupCrosscoder(config).eval()
    with torch.no_grad():
        crosscoder.W_dec.copy_(truth.base.expand(3, -1, -1))
        crosscoder.W_enc.copy_(truth.base * torch.tensor([0.5, 0.5, 0.001])[:, None, None])
    acts, _ = truth.sample(100, n_active=1, seed=5)
    atlas = analyze(crosscoder, acts)
    assert atlas.contribution.spare.tolist() == [False, False, True]
    assert atlas.duplicates.labels.tolist() == [0, 0, -1]
    assert [row["duplicate_of"] for row in atlas.table()] == [None, 0, None]
    assert [row["family"] for row in atlas.table()] == [0, 1, 2]
    assert any("1 is spare" in sentence for sentence in headline(atlas))


def test_nothing_to_explain():
    truth, crosscoder = with_spares()
    nothing = crosscoder.b_dec.detach().expand(5, -1, -1)
    found = measure_activity(crosscoder, nothing).contribution
    assert found.share.isnan().all()
    assert math.isnan(found.typical)
    assert not found.spare.any()
    atlas = analyze(crosscoder, nothing)
    assert {row["contribution"] for row in atlas.table()} == {None}
    with torch.no_grad():
        crosscoder.b_enc.fill_(-1e9)
    silent = measure_activity(crosscoder, truth.sample(5, n_active=1, seed=0)[0]).contribution
    assert silent.share.isnan().all()
    assert not silent.spare.any()


def test_headline_of_an_atlas_without_it():
    truth, crosscoder = with_spares()
    atlas = analyze(crosscoder, truth.sample(50, n_active=2, seed=5)[0])
    assert any("spare" in sentence for sentence in headline(atlas))
    older = replace(atlas, parts={name: part for name, part in atlas.parts.items() if name != "contribution"})
    assert older.contribution is None
    assert not any("spare" in sentence for sentence in headline(older))
