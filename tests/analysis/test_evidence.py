"""The evidence for stabilizers: nulls, resampling of images, near misses, and estimates side by side."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc import CrosscoderConfig, GroupCrosscoder
from groupcc.analysis import Atlas, analyze, find_stabilizers, translate
from groupcc.analysis.evidence.moved_activations import MovedActivations
from groupcc.analysis.evidence.nulls import chance_scores, control_error, interpolation_error
from groupcc.analysis.evidence.resampling import measure_data
from groupcc.analysis.symmetry.near_misses import limits, near_misses
from groupcc.analysis.symmetry.stabilizers import subgroup_types, type_scores
from groupcc.data import as_orbits
from groupcc.groups import group
from groupcc.zoo.planted import planted
from helpers.dictionaries import reader, without_blocks


def random_reader(settings):
    """A crosscoder that fits badly, with biases that are off, and activations for it."""
    generator = torch.Generator().manual_seed(3)
    made = GroupCrosscoder(CrosscoderConfig(**{"group": "D3", "d_in": 6, "n_latents": 5, "k": 3} | settings))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    acts = 1 + torch.randn(90, 6, 6, generator=generator) + torch.arange(6.0)[:, None]
    return made.eval(), acts


KINDS = [
    {"encoder": "identity"},
    {"encoder": "orbit"},
    {"encoder": "orbit", "tied": True},
    {"encoder": "identity", "tied": True, "pose": "nms", "pose_distance": 0.0, "k": 9},
    {"encoder": "orbit", "tied": "residual"},
]


def names(settings):
    return "-".join(str(value) for value in settings.values())


@pytest.mark.parametrize("settings", KINDS, ids=names)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_products_of_templates_by_hand(settings, in_chunks, monkeypatch):
    """Σ_{s≠t} of U_s = Σ_n (f − f̄)(a − â − mean) + Σ_n (f − f̄)² W over parts of the images, in fp64, pose by pose."""
    if in_chunks:
        monkeypatch.setattr("groupcc.analysis.evidence.resampling.MAX_BLOCK_NUMBERS", 60)
        monkeypatch.setattr("groupcc.analysis.evidence.resampling.MAX_TEMPLATES", 100)
    made, acts = random_reader(settings)
    G, L = 6, 5
    present = torch.ones(L, G, dtype=torch.bool)
    present[1, 4] = present[3, :2] = False
    found = measure_data(
        made, as_orbits(acts, G, 6), made.W_dec, present, examples=1000, batch_size=4 if in_chunks else 1024
    )
    with torch.no_grad():
        latents = made.encode(acts)
        residual = (acts - made.decode(latents)).double()
    mean_r = residual.mean(0)
    part = torch.arange(90) % 10
    cayley = made.group.cayley.copy()
    U = torch.zeros(10, L, G, 6, dtype=torch.float64)
    for latent in range(L):
        for h in range(G) if made.config.tied else [0]:
            here = latents.indices == latent
            here = here & (latents.poses == h) if made.config.tied else here
            f = (latents.acts * here).sum(1).detach().double()
            f = f - f.mean()
            for b in range(G):
                g = int(np.flatnonzero(cayley[:, h] == b)[0]) if made.config.tied else b
                each = f[:, None] * (residual[:, g] - mean_r[g]) + f[:, None] ** 2 * made.W_dec[latent, b].detach()
                U[:, latent, b].index_add_(0, part, each)
    U = U * present[:, :, None]
    rest = U.sum(0) - U
    products, powers = torch.zeros(2, 10, L, G, dtype=torch.float64)
    for h in range(G):
        forth = (U * translate(rest, made.group, h)).sum((2, 3))
        back = (translate(U, made.group, h) * rest).sum((2, 3))
        products[:, :, h] = 0.5 * (forth + back)
        both = (present & present[:, cayley[:, h]])[None, :, :]
        own = (U * rest).sum(3)
        powers[:, :, h] = 0.5 * ((own + own[:, :, cayley[:, h]]) * both).sum(2)
    scale = powers.abs().max()
    torch.testing.assert_close(found.products / scale, products / scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.powers / scale, powers / scale, rtol=1e-4, atol=1e-5)
    assert found.parts.max() == 10


@pytest.mark.parametrize("settings", KINDS[:4], ids=names)
def test_responses_by_hand(settings):
    made, acts = random_reader(settings)
    with torch.no_grad():
        latents = made.encode(acts)
    responses = MovedActivations(made)
    for rows in (slice(0, 4), slice(4, 90)):
        responses.add(acts[rows], type(latents)(*(None if x is None else x[rows] for x in latents)))
    found, known = responses.autocorrelation()
    for latent in range(5):
        rows, columns = ((latents.indices == latent) & (latents.acts > 0)).nonzero()[:32].T
        assert bool(known[latent]) == (len(rows) >= 5)
        z = []
        for h in range(6):
            with torch.no_grad():
                if made.config.tied:
                    pose = torch.from_numpy(made.group.cayley[latents.poses[rows, columns], h])
                    pre = made.pre_acts(acts[rows])[torch.arange(len(rows)), latent, pose]
                else:
                    pre = made.pre_acts(translate(acts[rows], made.group, h))[:, latent]
            z.append(pre.clamp_min(0))
        inverse = made.group.inverse
        for h in range(6):
            top = sum((z[0] * z[k]).sum() for k in (h, inverse[h]))
            bottom = sum(0.5 * (z[0] ** 2 + z[k] ** 2).sum() for k in (h, inverse[h]))
            assert float(found[latent, h]) == pytest.approx(float(top / bottom) if known[latent] else 0.0, abs=1e-4)


def stated_or_hidden(evidence):
    """Which labels are stated. The others are so because blocks that are white over the group say nothing of mirrors
    between two elements."""
    said = ("too few rotations to tell C", "% of resamples")
    assert all(reason is None or any(words in reason for words in said) for reason in evidence.undecided)
    return torch.tensor([reason is None for reason in evidence.undecided])


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
def test_planted_latents_are_sure_and_all_agree(encoder):
    truth = planted("D8", d_in=48, n_latents=8, seed=1)
    acts, _ = truth.sample(3000, n_active=2, noise=0.3)
    evidence = analyze(reader(truth.atoms, "D8", encoder=encoder), acts).evidence
    expected = [truth.group.subgroup_of(mask).name for mask in truth.atom_stabilizers]
    assert [row["decoder"] for row in evidence.estimates] == expected
    assert [row["activations"] for row in evidence.estimates] == expected
    assert [row["encoder"] for row in evidence.estimates] == (
        expected if encoder == "orbit" else [None] * len(expected)
    )
    assert evidence.agreement == ["agree"] * len(expected)
    stated = stated_or_hidden(evidence)
    assert 0.5 < stated.float().mean() < 1
    assert evidence.stability[stated].min() > 0.98
    assert not any(evidence.near_misses)
    assert not any(evidence.broken)
    # Noise does not lower what the data say of symmetric elements, as it would C of one template.
    inside = torch.from_numpy(truth.atom_stabilizers)
    assert (evidence.data[inside].mean() - 1).abs() < 0.02


def test_tied_latents_are_sure_and_all_agree():
    truth = planted("D4", d_in=48, n_latents=8, seed=1)
    acts, _ = truth.sample(3000, n_active=2, noise=0.2)
    evidence = analyze(reader(truth.base, "D4", tied=True), acts).evidence
    expected = [subgroup.name for subgroup in truth.stabilizers]
    assert evidence.estimates == [dict.fromkeys(("label", "decoder", "encoder", "activations"), n) for n in expected]
    assert stated_or_hidden(evidence).sum() >= 4


def half_odd(share, latents, D=64, seed=0):
    """Latents of C2, orthogonal by channels, with this share of their power odd under the half turn."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.zeros(latents, 2, D)
    width = D // latents
    for latent in range(latents):
        at = slice(latent * width, (latent + 1) * width)
        even, odd = torch.linalg.qr(torch.randn(width, 2, generator=generator)).Q.T
        W[latent, :, at] = (1 - share) ** 0.5 * even + share**0.5 * torch.tensor([[1.0], [-1.0]]) * odd
    return W / 2**0.5


def sparse_orbits(W, n, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(n, len(W), generator=generator).argsort(1)[:, :1]
    codes = torch.zeros(n, len(W)).scatter_(1, active, 1 + torch.rand(n, 1, generator=generator))
    acts = torch.einsum("nl,lgd->ngd", codes, W)
    return acts + noise * torch.randn(acts.shape, generator=generator)


def test_stability_is_how_often_other_images_agree():
    """C(180°) = 1 − 2·share of the odd part: near the limit other images decide otherwise, as often as said."""
    agreed, said = [], []
    for share in (0.06, 0.07, 0.075, 0.08, 0.09):
        W = half_odd(share, 8)
        made = reader(W, "C2", k=1)
        runs = [analyze(made, sparse_orbits(W, 400, 0.15, seed), tolerance=0.15).evidence for seed in range(6)]
        # Without noise in them the templates of a run are of C2 where they pass the limit.
        found = torch.stack([run.data[:, 1] >= 0.85 for run in runs]).double().mean(0)
        agreed.append(found.mean())
        said.append(torch.stack([run.shares[:, 1] for run in runs]).mean())
    agreed, said = torch.stack(agreed), torch.stack(said)
    assert agreed[0] > 0.9
    assert agreed[-1] < 0.1
    assert 0.2 < agreed[2] < 0.8
    assert (agreed - said).abs().max() < 0.15


def test_undecided_says_why():
    W = half_odd(0.075, 8)
    evidence = analyze(reader(W, "C2", k=1), sparse_orbits(W, 400, 0.15, 0), tolerance=0.15).evidence
    assert sum(reason is not None and "% of resamples" in reason for reason in evidence.undecided) >= 4
    few = analyze(reader(W, "C2", k=1), sparse_orbits(W, 4, 0.0, 0), tolerance=0.15).evidence
    assert {reason for reason in few.undecided if reason} == {"too little data"}
    assert few.stability.isnan().all()


def test_near_misses_in_words():
    W = half_odd(0.1, 4)  # C(180°) = 0.8
    atlas = analyze(reader(W, "C2", k=1), tolerance=0.15)
    assert [s.name for s in atlas.stabilizers] == ["C1"] * 4
    assert str(atlas.evidence.near_misses[0][0]) == "almost C2: 180° turn 0.80"
    assert atlas.table()[0]["near_miss"] == "almost C2: 180° turn 0.80"
    assert not any(analyze(reader(W, "C2", k=1), tolerance=0.05).evidence.near_misses)
    G = group("D8")

    def centred(values):
        """C with these values and one other value everywhere else, so that its mean is 0."""
        C = torch.full((1, 16), -sum(values.values()) / (16 - len(values)))
        for element, value in values.items():
            C[0, element] = value
        return C

    C = centred({0: 1.0, 4: 1.0, 2: 0.83, 6: 0.83})
    stabilizers = find_stabilizers(C, G, 0.1)
    assert stabilizers[0].name == "C2"
    assert [str(miss) for miss in near_misses(C, G, stabilizers, 0.1)[0]] == ["almost C4: 90° turn 0.83"]
    C = centred({0: 1.0, 4: 1.0, 2: 0.83, 6: 0.83, 8: 0.95, 12: 0.82})
    found = near_misses(C, G, find_stabilizers(C, G, 0.1), 0.1)[0]
    assert str(found[0]) == "almost C4: 90° turn 0.83"
    assert str(found[1]) == "almost D2: mirror at 0° 0.82"  # element 12 mirrors in the line at 90° + 180°·4/8
    limit = limits(C[0], G, type_scores(C, G), 0, "C8")
    assert (limit.element, limit.exact) == ("45° turn", False)


def test_a_disagreement_is_shown():
    truth = planted("D4", d_in=48, n_latents=5, stabilizers=["D2"], seed=1)
    acts, _ = truth.sample(2000, n_active=2)
    made = reader(truth.atoms, "D4")
    with torch.no_grad():  # the first latent's encoder turned from D2 into one block
        made.W_enc[0, 1:] = 0
        made.W_enc[0, 0] *= 8
    atlas = analyze(made, acts)
    assert atlas.evidence.estimates[0]["encoder"] == "C1"
    assert atlas.evidence.agreement[0].startswith("encoder C1")
    assert atlas.evidence.agreement[1] == "agree"
    assert atlas.table()[0]["agreement"] == atlas.evidence.agreement[0]


def test_broken_symmetry_in_the_atlas_and_its_file(tmp_path):
    truth = planted("D8", d_in=48, n_latents=8, stabilizers=["D2", "C4"], seed=0)
    W, hit = without_blocks(truth.base, 0.0, 1 / 3, 1)
    W[4:], hit[4:] = truth.base[4:], False
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(3000, 8, generator=generator) * (torch.rand(3000, 8, generator=generator) > 0.8)
    acts = torch.einsum("nl,lgd->ngd", codes, W)
    acts += 0.01 * torch.randn(acts.shape, generator=generator)
    atlas = analyze(reader(W / W.flatten(1).norm(dim=1)[:, None, None], "D8", k=4), acts, control=torch.ones(3, 16, 48))
    assert [s.name for s in atlas.stabilizers] == ["D2", "C4"] * 4
    assert [s.broken for s in atlas.stabilizers] == [True] * 4 + [False] * 4
    evidence = atlas.evidence
    assert [evidence.broken[0].missing, evidence.broken[5]] == [hit[0].nonzero()[:, 0].tolist(), None]
    assert str(evidence.broken[0]) == "broken D2: of 16 blocks 5 missing (31 %)"
    assert evidence.broken[0].share == 5 / 16
    assert evidence.stability[::2].min() > 0.9  # of the blocks that are there
    assert stated_or_hidden(evidence).tolist() == [True, False] * 4
    row = atlas.table()[0]
    assert (row["stabilizer"], row["broken"]) == ("D2", str(evidence.broken[0]))
    assert atlas.table()[4]["broken"] is None
    read = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert read.table() == atlas.table()
    assert [s.broken for s in read.stabilizers] == [s.broken for s in atlas.stabilizers]
    assert read.evidence.null.control == evidence.null.control == 0.0
    for name, tensor in evidence.tensors().items():
        torch.testing.assert_close(read.evidence.tensors()[name], tensor, rtol=0, atol=0, equal_nan=True)
    weights = analyze(reader(W, "D8"))
    again = Atlas.load(weights.save(tmp_path / "weights"))
    assert again.evidence.stability is None
    assert again.evidence.activations is None
    assert again.evidence.encoder is not None
    assert again.table() == weights.table()


def test_interpolation_is_measured_on_invariant_latents():
    G = group("D8")
    C = torch.full((3, 16), 0.9)
    C[:, 0] = 1.0
    assert interpolation_error(C, G) == pytest.approx(0.0)
    C[:, [2, 4, 6, 8, 10, 12, 14]] += torch.tensor([[0.02], [0.03], [0.05]])
    assert interpolation_error(C, G) == pytest.approx(0.03)
    assert interpolation_error(2 - C, G) == 0.0
    assert interpolation_error(C[:0], G) is None
    assert interpolation_error(torch.ones(3, 8), group("D4")) is None


def test_a_control_that_is_isotropic_but_for_interpolation():
    G = group("D8")
    generator = torch.Generator().manual_seed(0)
    orbits = torch.randn(40, 1, 12, generator=generator).repeat(1, 16, 1)
    assert control_error(orbits, G, 12) == pytest.approx(0.0, abs=1e-6)
    orbits[:, torch.from_numpy(~G.exact)] *= 0.5
    # C at a turn by 45° is Σ 1·½ over 16 blocks to Σ of 8 ones and 8 quarters.
    assert control_error(orbits, G, 12) == pytest.approx(1 - 16 * 0.5 / 10, abs=1e-5)


def test_chance_is_what_unrelated_blocks_have():
    G = group("D8")
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(50, 16, 24, generator=generator)
    chance = chance_scores(white, G)
    assert len(chance) == len(subgroup_types(G))
    assert chance[0] == 1.0
    assert (chance[1:] < 0.5).all()
    alike = chance_scores(white + 6 * torch.randn(24, generator=generator), G)
    # A common part makes the whole alike under every transform, and the modulated part no more symmetric.
    assert alike[-1] > 0.9
    assert (alike[1:-1] < 0.5).all()
    assert (chance_scores(white[:5], G) == -1).all()
    scaled = chance_scores(white * torch.rand(50, 1, 1, generator=generator), G)
    torch.testing.assert_close(scaled, chance, rtol=0, atol=0.02)  # a flat curve may peak anywhere


def test_a_common_part_alone_is_undecided():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(40, 8, 32, generator=generator) + 4 * torch.randn(32, generator=generator)
    atlas = analyze(reader(W / W.flatten(1).norm(dim=1)[:, None, None], "D4"))
    called = [s.name == "D4" for s in atlas.stabilizers]
    assert sum(called) > 30
    undecided = ["unrelated blocks" in (reason or "") for reason in atlas.evidence.undecided]
    assert sum(a and b for a, b in zip(called, undecided, strict=True)) > 0.9 * sum(called)
    assert atlas.kind_counts["undecided"] >= sum(undecided)


def test_a_decision_within_interpolations_reach_is_undecided():
    truth = planted("C8", d_in=24, n_latents=12, stabilizers=["C1", "C4"], seed=0)
    made = reader(truth.base, "C8")
    with torch.no_grad():  # one half odd under 45° so that C there is 0.9
        made.W_dec[0] = truth.base[1].mean(0) + 0.2294 * (-1.0) ** torch.arange(8)[:, None] * truth.base[1].mean(0)
    control = torch.ones(4, 8, 24)
    control[:, 1::2] *= 0.8
    evidence = analyze(made, tolerance=0.08, control=control).evidence
    assert evidence.undecided[0] is not None
    assert "interpolation" in evidence.undecided[0]
    assert analyze(made, tolerance=0.08).evidence.undecided[0] is None


def test_degenerate_input():
    truth = planted("D4", d_in=24, n_latents=4, stabilizers=["D2"], seed=0)
    acts, _ = truth.sample(300, n_active=1)
    W = torch.cat([truth.base, truth.base[:1], torch.zeros(1, 8, 24)])
    made = reader(W, "D4", k=3)
    with torch.no_grad():
        made.b_enc[3] = -1e6
    evidence = analyze(made, acts).evidence
    assert evidence.estimates[5] == {"label": None, "decoder": None, "encoder": None, "activations": None}
    dead = evidence.columns(5)
    assert set(dead.values()) == {None}
    assert evidence.columns(3) == dead
    assert [row["decoder"] for row in evidence.estimates[:3]] == ["D2"] * 3
    assert evidence.estimates[0] == evidence.estimates[4]
    with torch.no_grad():  # it fires now, and writes nothing
        made.W_enc[5] = made.W_enc[3]
    assert set(analyze(made, acts).evidence.columns(5).values()) == {None}
    nothing = analyze(made, torch.zeros(40, 8, 24)).evidence
    assert nothing.stability.isnan().all()
    assert all(row == dict.fromkeys(row) for row in nothing.estimates)
    single = analyze(reader(truth.base[:1], "D4", k=1), acts[:8]).evidence
    assert single.undecided == ["too little data"]
    trivial = analyze(reader(torch.eye(3)[:, None], "C1", k=1), torch.eye(3)[torch.arange(60) % 3][:, None]).evidence
    assert trivial.stability.tolist() == [1.0] * 3
    assert trivial.agreement == ["agree"] * 3
    assert trivial.null.interpolation is None
    weights = analyze(reader(truth.base, "D4"), acts, evidence_examples=0).evidence
    assert (weights.stability, weights.activations, weights.data) == (None, None, None)
