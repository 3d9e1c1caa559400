"""Latent scaling: blocks absent in the data, shrunk by hand, carried by another latent; all of them known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from groupcc.analysis import VERDICTS, Atlas, analyze, measure_scaling
from groupcc.analysis.evidence import scaling
from groupcc.errors import ArgumentError
from groupcc.groups import group as make_group
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.models.forms.tied import translates

L, K, D = 16, 3, 32


def atoms_of(group="D3", latents=L, seed=0):
    """Latents whose blocks all have norm 1 and unrelated directions, [L, G, D]."""
    generator = torch.Generator().manual_seed(seed)
    order = make_group(group).order
    return torch.nn.functional.normalize(torch.randn(latents, order, D, generator=generator), dim=2)


def orbits_of(data, n=1200, noise=0.0, seed=1, share=K / L):
    """n orbits in which every latent is active by itself, whatever the others do; block 0 has no noise."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(n, len(data), generator=generator) < share
    acts = active * (1 + torch.rand(n, len(data), generator=generator))
    clean = (acts @ data.flatten(1)).view(n, *data.shape[1:])
    spread = noise * clean.square().mean().sqrt() * torch.randn(clean.shape, generator=generator)
    spread[:, 0] = 0
    return clean + spread


def reader(data, written, group="D3", **settings):
    """A crosscoder that reads the acts behind `orbits_of(data)` exactly, from block 0, and decodes with `written`."""
    config = {"k": len(data), "encoder": "identity"} | settings
    made = GroupCrosscoder(CrosscoderConfig(group=group, d_in=D, n_latents=len(data), **config))
    with torch.no_grad():
        made.W_dec.copy_(written)
        made.W_enc.copy_(torch.linalg.pinv(data[:, 0]).t()[:, None])
        made.b_enc.fill_(-1e-3)  # what rounding leaves of silent latents is not active
        made.b_dec.zero_()
    return made.eval()


def tied_reader(base, written, group="D3", **settings):
    config = {"k": 1, "encoder": "orbit", "tied": True} | settings
    made = GroupCrosscoder(CrosscoderConfig(group=group, d_in=D, n_latents=len(base), **config))
    with torch.no_grad():
        made.W_dec.copy_(written)
        made.W_enc.copy_(base / base.square().sum((1, 2), keepdim=True))
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made.eval()


def tied_orbits(base, group="D3", n=3000, noise=0.0, seed=1):
    """One base latent an example, in a pose drawn unevenly."""
    G = make_group(group)
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(0, len(base), (n,), generator=generator)
    h = (torch.rand(n, generator=generator).square() * G.order).long()
    clean = translates(base, G)[which * G.order + h] * (1 + torch.rand(n, 1, 1, generator=generator))
    return clean + noise * clean.square().mean().sqrt() * torch.randn(clean.shape, generator=generator)


def others_present(found, latent, *but):
    """Whether every block of every latent is present, those of `latent` in `but` left out."""
    codes = found.codes.clone()
    codes[latent, list(but)] = 0
    return bool((codes == 0).all())


@pytest.mark.parametrize("group", ["D3", "C5", "D1"])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_untouched_blocks_are_present(group, noise):
    data = atoms_of(group)
    found = measure_scaling(reader(data, data, group), orbits_of(data, noise=noise))
    assert found.beta.shape == found.codes.shape == (L, make_group(group).order)
    assert others_present(found, 0)
    assert found.verdict(3) == "present"
    assert (found.beta - 1).abs().max() < (0.15 if noise else 2e-3)
    assert (found.strength - 1).abs().max() < 0.2
    if noise:
        assert ((found.beta - 1).abs()[:, 1:] < 6 * found.beta_error[:, 1:]).all()


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("block", [2, 4])
@pytest.mark.parametrize("factor", [0.3, 0.0])
def test_a_block_shrunk_by_hand(noise, block, factor):
    data = atoms_of()
    written = data.clone()
    written[5, block] *= factor
    found = measure_scaling(reader(data, written), orbits_of(data, noise=noise))
    assert found.verdicts(5)[block] == "shrunk"
    assert found.verdict(5) == "shrunk"
    assert others_present(found, 5, block)
    assert found.strength[5, block] == pytest.approx(1, abs=0.2)
    if factor:
        assert float(found.beta[5, block]) == pytest.approx(1 / factor, rel=0.1 if noise else 2e-3)
    else:
        assert bool(found.beta[5, block].isnan())


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("wrongly", [0.0, 1.0])
def test_a_block_that_the_data_lacks(noise, wrongly):
    data = atoms_of()
    written = data.clone()
    data[5, 4] = 0
    written[5, 4] *= wrongly
    found = measure_scaling(reader(data, written), orbits_of(data, n=4000, noise=noise))
    assert found.verdicts(5)[4] == "absent"
    assert found.verdict(5) == "absent"
    assert others_present(found, 5, 4)
    assert found.strength[5, 4] < 0.1
    if wrongly:
        assert found.beta[5, 4].abs() < 0.1


def test_a_block_that_another_latent_carries():
    """The latent was taken apart: one copy has all blocks but two, the other these alone."""
    data = atoms_of()
    written = torch.cat([data, data[:1]])
    written[0, [2, 5]] = 0
    written[L, [0, 1, 3, 4]] = 0
    made = reader(data, data, k=L)
    apart = GroupCrosscoder(replace(made.config, n_latents=L + 1, k=L + 1))
    with torch.no_grad():
        apart.W_dec.copy_(written)
        apart.W_enc.copy_(torch.cat([made.W_enc, made.W_enc[:1]]))
        apart.b_enc.fill_(-1e-3)
        apart.b_dec.zero_()
    found = measure_scaling(apart, orbits_of(data, noise=0.3))
    assert found.verdicts(0) == ["present", "present", "carried", "present", "present", "carried"]
    assert found.verdicts(L) == ["carried", "carried", "present", "carried", "carried", "present"]
    assert found.verdict(0) == "carried"
    assert found.strength[0, 2] < 0.1
    assert found.strength_with_others[0, 2] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("group", ["D3", "D4", "C3"])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_tied_blocks_are_found_whatever_the_pose(group, noise):
    """A shrunk reflection block, and one that the data lacks, in poses of all kinds."""
    base = atoms_of(group, 12)  # so many that one's being active says little of the others
    order = make_group(group).order
    shrunk, absent = order - 1, order - 2
    written = base.clone()
    written[1, shrunk] *= 0.3
    base[2, absent] = 0
    written[2, absent] = 0
    found = measure_scaling(tied_reader(base, written, group), tied_orbits(base, group, noise=noise))
    assert found.verdicts(1)[shrunk] == "shrunk"
    assert float(found.beta[1, shrunk]) == pytest.approx(1 / 0.3, rel=0.15)
    assert found.verdicts(2)[absent] == "absent"
    codes = found.codes.clone()
    codes[1, shrunk] = codes[2, absent] = 0
    assert (codes == 0).all()


def by_hand(made, acts):
    """β by least squares with a constant, one latent and block after the other, in fp64."""
    group, tied = made.group, made.config.tied
    latents = made.encode(acts)
    residual = (acts - made.decode(latents)).double()
    W = made.W_dec.detach().double()
    poses = range(group.order) if tied else [0]
    beta = torch.full(W.shape[:2], torch.nan, dtype=torch.float64)
    for latent in range(len(W)):
        f_h = []
        for h in poses:
            here = latents.indices == latent
            f_h.append((latents.acts * (here & (latents.poses == h) if tied else here)).sum(1).double())
        f = torch.cat(f_h)
        if f.max() == 0:
            continue
        design = torch.cat([f[:, None], torch.block_diag(*[torch.ones(len(acts), 1, dtype=f.dtype)] * len(f_h))], 1)
        for b in range(group.order):
            at = [int(np.flatnonzero(group.cayley[:, h] == b)[0]) if tied else b for h in poses]
            y = torch.cat([residual[:, g] for g in at]) + f[:, None] * W[latent, b]
            u = torch.linalg.lstsq(design, y).solution[0]
            beta[latent, b] = u @ W[latent, b] / W[latent, b].square().sum()
    return beta.detach().float()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"tied": True, "pose": "max"},
        {"tied": True, "pose": "nms", "pose_distance": 0.0, "k": 9},
        {"tied": "residual"},
    ],
    ids=lambda s: str(s.get("tied")) + str(s.get("pose", "")),
)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_beta_is_that_of_least_squares(settings, one_by_one, monkeypatch):
    """On a crosscoder that fits badly, with biases that are off, in batches of any size, in one pass and in several."""
    generator = torch.Generator().manual_seed(3)
    config = {"group": "D3", "d_in": 6, "n_latents": 5, "k": 3, "encoder": "orbit"} | settings
    made = GroupCrosscoder(CrosscoderConfig(**config))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    acts = 1 + torch.randn(90, 6, 6, generator=generator) + torch.arange(6.0)[:, None]
    if one_by_one:
        monkeypatch.setattr(scaling, "MAX_SUMS", 1)
    made.train()
    found = measure_scaling(made, acts, batch_size=7 if one_by_one else 1024)
    assert made.training
    torch.testing.assert_close(found.beta, by_hand(made.eval(), acts), rtol=2e-4, atol=2e-4, equal_nan=True)
    assert found.beta.isfinite().sum() >= 18


def test_standard_error_is_the_spread_over_samples():
    data = atoms_of()
    made = reader(data, data)
    runs = [measure_scaling(made, orbits_of(data, n=400, noise=0.5, seed=seed)) for seed in range(20)]
    spread = torch.stack([run.beta for run in runs])[:, :, 1:].std(0).square().mean().sqrt()
    said = torch.stack([run.beta_error for run in runs])[:, :, 1:].square().mean().sqrt()
    assert 0.85 < said / spread < 1.2


def test_wrong_verdicts_at_the_limits_are_as_rare_as_said():
    """A block exactly at each limit may be called either way; that is wrong, and allowed to 1/6 % of blocks a side."""
    counts = np.zeros(len(VERDICTS), dtype=int)
    for seed in range(8):
        data = atoms_of(seed=seed)
        written = data.clone()
        data[::2, 4] *= scaling.EMPTY
        written[::2, 4] = 0
        written[1::2, 4] *= scaling.WRITTEN
        found = measure_scaling(reader(data, written), orbits_of(data, n=800, noise=0.3, seed=seed))
        counts += np.bincount(found.codes[:, 4], minlength=len(VERDICTS))
        assert (found.codes[:, [0, 1, 2, 3, 5]] == 0).all()
    assert counts.sum() - counts[VERDICTS.index("unclear")] <= 2


class Photographs:
    """Orbits of which each image has several copies of its one example."""

    def __init__(self, acts, copies):
        self.acts = acts.repeat_interleave(copies, 0)
        self.image_ids = 7 * torch.arange(len(acts)).repeat_interleave(copies)

    def __len__(self):
        return len(self.acts)

    def take(self, indices):
        return self.acts[indices]


def test_copies_within_an_image_prove_nothing():
    data = atoms_of()
    made, acts = reader(data, data), orbits_of(data, n=200, noise=0.5)
    once, copied = measure_scaling(made, acts), measure_scaling(made, Photographs(acts, 9))
    torch.testing.assert_close(copied.beta, once.beta, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(copied.beta_error, once.beta_error, rtol=1e-3, atol=1e-4)
    assert torch.equal(copied.codes, once.codes)


def test_noise_alone_is_unclear():
    data = atoms_of()
    acts = torch.randn(300, 6, D, generator=torch.Generator().manual_seed(5))
    acts[:, 0] = orbits_of(data, n=300)[:, 0]
    written = data.clone()
    written[:, 0] = 0
    written *= 0.01
    acts[:, 0] = 0.01 * acts[:, 0]
    acts[:, 3], written[:, 3] = 0, 0  # exactly, beside blocks of noise: no scale to call it small on
    found = measure_scaling(reader(data, written), acts)
    assert (found.codes[:, 1:] == VERDICTS.index("unclear")).double().mean() > 0.95
    assert (found.codes[:, 3] == VERDICTS.index("unclear")).sum() >= L - 1


def test_latents_are_those_of_inference():
    data = atoms_of()
    made, acts = reader(data, data, sparsity="batchtopk", k=1), orbits_of(data, n=300)
    expected = measure_scaling(made, acts)
    torch.testing.assert_close(measure_scaling(made.train(), acts).beta, expected.beta, rtol=0, atol=0)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_examples_are_unclear(n):
    data = atoms_of()
    found = measure_scaling(reader(data, data), orbits_of(data, n=n))
    assert (found.codes == VERDICTS.index("unclear")).all()
    if n == 1:
        assert found.beta.isnan().all()
    one_image = Photographs(orbits_of(data, n=1), 50)
    assert (measure_scaling(reader(data, data), one_image).codes == VERDICTS.index("unclear")).all()


def test_a_dead_latent_and_one_that_fires_twice():
    data = atoms_of()
    made = reader(data, data)
    acts = orbits_of(data, noise=0.1)
    with torch.no_grad():
        made.b_enc[2] = -1e6
        made.W_dec[3] = 0
    found = measure_scaling(made, acts)
    assert found.verdicts(2) == ["unclear"] * 6
    assert found.columns(2) == {
        "scaling": "unclear", "blocks_present": 0, "blocks_shrunk": 0, "blocks_carried": 0, "blocks_absent": 0,
        "blocks_unclear": 6, "beta": None,
    }  # fmt: skip
    assert found.verdicts(3) == ["shrunk"] * 6
    assert found.beta[3].isnan().all()
    acts = orbits_of(data)
    only = (made.encode(acts).to_dense(L)[:, 4] > 0).nonzero().flatten()[2:]
    keep = torch.ones(len(acts), dtype=torch.bool)
    keep[only] = False
    assert measure_scaling(made, acts[keep]).verdict(4) == "unclear"


def test_the_trivial_group():
    data = atoms_of("C1")
    written = data.clone()
    written[4] *= 0.3
    found = measure_scaling(reader(data, written, "C1"), orbits_of(data))
    assert found.verdicts(4) == ["shrunk"]
    assert found.verdicts(5) == ["present"]


def test_nan_is_an_error_that_names_its_place():
    data = atoms_of()
    made, acts = reader(data, data), orbits_of(data, n=40)
    acts[3, 2, 1] = float("nan")
    with pytest.raises(ArgumentError, match="acts: expected finite numbers"):
        measure_scaling(made, acts)
    with torch.no_grad():
        made.W_dec[7, 0, 0] = float("inf")
    with pytest.raises(ArgumentError, match="latent 7"):
        measure_scaling(made, orbits_of(data, n=40))
    with pytest.raises(ArgumentError, match="batch_size"):
        measure_scaling(reader(data, data), acts, batch_size=0)


def test_in_an_atlas(tmp_path):
    data = atoms_of()
    written = data.clone()
    written[5, 4] *= 0.3
    made, acts = reader(data, written), orbits_of(data, noise=0.2)
    plain, atlas = analyze(made, acts), analyze(made, acts, scaling=True)
    assert plain.scaling is None
    assert "scaling" not in plain.table()[0]
    row = atlas.table()[5]
    assert (row["scaling"], row["blocks_shrunk"], row["blocks_present"]) == ("shrunk", 1, 5)
    assert row["beta"] == pytest.approx(1, abs=0.1)
    read = Atlas.load(atlas.save(tmp_path / "atlas"))
    for name, tensor in atlas.scaling.tensors().items():
        torch.testing.assert_close(read.scaling.tensors()[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert read.table() == atlas.table()
    read.write_table(tmp_path / "table.json")
    pages = {}
    for name, made_atlas in (("with", read), ("without", plain)):
        made_atlas.report(tmp_path / f"{name}.html")
        pages[name] = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
    assert pages["with"].count("5 of its 6 blocks; 1 is weaker") == 1
    assert "The data agrees" not in pages["without"]
    assert Atlas.load(plain.save(tmp_path / "plain")).scaling is None
    with pytest.raises(ArgumentError, match="scaling: expected orbits"):
        analyze(made, scaling=True)


def test_students_quantiles():
    stats = pytest.importorskip("scipy.stats")
    freedom = np.array([2, 3, 9, 40])
    for probability in (0.99, 1 - 0.01 / 64):
        found = scaling._student_t(probability, freedom)
        np.testing.assert_allclose(found, stats.t.ppf(probability, freedom), rtol=1e-5)
    assert np.isnan(scaling._student_t(0.99, np.array([-1, 0, 1]))).all()
