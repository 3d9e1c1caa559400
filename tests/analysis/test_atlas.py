"""analyze and Atlas: fields, activity on orbits, tables, files, degenerate input."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from groupcc.analysis import KINDS, Atlas, analyze, measure_activity
from groupcc.errors import ArgumentError, DataError
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.zoo.planted import planted


def crosscoder_of(W_dec: torch.Tensor, group: str, k: int = 2) -> GroupCrosscoder:
    """A crosscoder whose encoder reads off orthogonal latents."""
    L, _, D = W_dec.shape
    crosscoder = GroupCrosscoder(CrosscoderConfig(group=group, d_in=D, n_latents=L, k=k, encoder="orbit"))
    with torch.no_grad():
        crosscoder.W_dec.copy_(W_dec)
        crosscoder.W_enc.copy_(W_dec)
    return crosscoder.eval()


def planted_crosscoder(dead: int = 2) -> tuple[GroupCrosscoder, torch.Tensor]:
    truth = planted("D4", d_in=64, n_latents=8, seed=0)
    W = torch.cat([truth.atoms, torch.zeros(dead, 8, 64)])
    acts, _ = truth.sample(300, n_active=2, seed=1)
    return crosscoder_of(W, "D4"), acts


@dataclass
class Lattice:
    stride: float = 4.0
    receptive_field: int = 24


class Store:
    """Orbits of two images with positions in a row, as an orbit store has them."""

    def __init__(self, acts: torch.Tensor, per_image: int) -> None:
        self.acts, self.per_image = acts, per_image
        self.image_ids = torch.arange(len(acts)) // per_image
        self.lattice = Lattice()

    def __len__(self) -> int:
        return len(self.acts)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return self.acts[indices]

    def positions_of(self, i: int) -> tuple[int, int]:
        return i % self.per_image, 0


def test_atlas_of_weights_alone():
    crosscoder, _ = planted_crosscoder()
    L = crosscoder.config.n_latents
    atlas = analyze(crosscoder)
    assert atlas.group is crosscoder.group
    assert (atlas.n_latents, atlas.d_in) == (L, 64)
    assert atlas.autocorrelation.shape == atlas.block_norms.shape == (L, 8)
    assert atlas.spectrum.shape == (L, len(atlas.irrep_names))
    assert atlas.dead.tolist() == [False] * (L - 2) + [True] * 2
    assert atlas.kinds[-2:] == ["dead", "dead"]
    assert sum(atlas.kind_counts.values()) == L
    assert list(atlas.kind_counts) == list(KINDS)
    assert atlas.frequency is atlas.mean_act is atlas.metrics is atlas.top_examples is None
    W = crosscoder.W_dec.detach()[3]
    expected = torch.nn.functional.cosine_similarity(W[:, None], W[None], dim=-1)
    torch.testing.assert_close(atlas.similarity(3), expected, atol=1e-3, rtol=0)
    assert torch.equal(atlas.similarity(L - 1), torch.zeros(8, 8))
    invariant = atlas.kinds.index("invariant")
    assert atlas.modulation[invariant] < 1e-4
    assert atlas.modulation[[s.name for s in atlas.stabilizers].index("C1")] > 0.5


def test_activity_on_orbits():
    crosscoder, acts = planted_crosscoder(dead=1)
    atlas = analyze(crosscoder, acts, top=5, batch_size=64)
    latents = crosscoder.encode(acts)
    dense = latents.to_dense(crosscoder.config.n_latents)
    torch.testing.assert_close(atlas.frequency, (dense > 0).float().mean(0))
    torch.testing.assert_close(atlas.mean_act, dense.sum(0) / (dense > 0).sum(0).clamp_min(1))
    values, indices = dense.topk(5, dim=0)
    torch.testing.assert_close(atlas.top_examples.acts, values.T)
    shown = values.T > 0
    assert torch.equal(atlas.top_examples.indices[shown], indices.T[shown])
    assert (atlas.top_examples.indices[~shown] == -1).all()
    assert atlas.dead[-1]
    reconstruction = crosscoder.decode(latents).detach()
    residual = (acts - reconstruction).square().sum((0, 2))
    total = (acts - acts.mean(0)).square().sum((0, 2))
    assert atlas.metrics["fvu"] == pytest.approx(float(residual.sum() / total.sum()), rel=1e-4)
    assert atlas.metrics["fvu_per_block"] == pytest.approx((residual / total).tolist(), rel=1e-4)
    assert atlas.metrics["l0"] == pytest.approx(float((dense > 0).sum(1).float().mean()))
    assert atlas.metrics["n_examples"] == 300


def test_a_latent_that_never_fires_is_dead():
    crosscoder, acts = planted_crosscoder(dead=0)
    with torch.no_grad():
        crosscoder.b_enc[4] = -100.0
    atlas = analyze(crosscoder, acts)
    assert atlas.dead.nonzero().flatten().tolist() == [4]
    assert atlas.kinds[4] == "dead"
    assert atlas.families.labels[4] == -1
    assert atlas.table()[4]["family"] is None


def test_top_examples_are_not_neighbours():
    # One latent, and acts that fall along each image: the second best is beside the best.
    W = torch.ones(1, 2, 1) / 2**0.5
    strength = torch.cat([torch.linspace(2, 1, 20), torch.linspace(1.9, 0.9, 20)])
    store = Store(strength[:, None, None].expand(-1, 2, 1).clone(), per_image=20)
    crosscoder = crosscoder_of(W, "C2", k=1)
    # Half of 24 pixels at stride 4 are 3 positions.
    found = measure_activity(crosscoder, store, top=4, batch_size=7).top_examples.indices[0].tolist()
    assert found == [0, 20, 3, 23]
    found = measure_activity(crosscoder, store, top=4, min_distance=0).top_examples.indices[0].tolist()
    assert found == [0, 1, 20, 2]
    store.positions_of = None
    store.lattice = None
    assert measure_activity(crosscoder, store, top=4).top_examples.indices[0].tolist() == [0, 20, -1, -1]


def fires(strength: list[float], photographs: list[int]) -> tuple[GroupCrosscoder, Store]:
    """One latent with these acts, and a store of two examples an image, 100 pixels apart."""
    acts = torch.tensor(strength)[:, None, None].expand(-1, 2, 1).clone()
    store = Store(acts, per_image=2)
    store.positions_of = lambda i: (100 * (i % 2), 0)
    store.photograph_ids = torch.tensor(photographs)
    return crosscoder_of(torch.ones(1, 2, 1) / 2**0.5, "C2", k=1), store


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_top_examples_are_of_different_photographs(batch_size):
    strength = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0]

    def shown(photographs, top, values=strength):
        found = measure_activity(*fires(values, photographs), top=top, batch_size=batch_size).top_examples
        chosen = found.indices[0].tolist()
        expected = torch.tensor([2**0.5 * values[i] if i >= 0 else 0.0 for i in chosen])
        torch.testing.assert_close(found.acts[0], expected)
        return chosen

    # Two images of a photograph, with two examples each: one is shown where there are enough photographs.
    assert shown([5, 5, 5, 5, 9, 9, 2, 2], top=3) == [0, 4, 6]
    assert shown([5, 5, 5, 5, 9, 9, 2, 2], top=2) == [0, 4]
    # If there are too few, the strongest of the others follow, and all are in order.
    assert shown([5, 5, 5, 5, 9, 9, 2, 2], top=5) == [0, 1, 2, 4, 6]
    assert shown([5] * 8, top=3) == [0, 1, 2]
    # A photograph in which the latent is silent shows nothing.
    assert shown([5, 5, 5, 5, 9, 9, 2, 2], top=3, values=[*strength[:6], 0.0, 0.0]) == [0, 1, 4]
    # Ties go to the lower example.
    assert shown([3, 3, 1, 1, 2, 2, 0, 0], top=2, values=[4.0] * 8) == [0, 2]


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_a_photograph_that_is_strongest_everywhere_hides_no_other(batch_size):
    """More of its examples than there are candidates."""
    strength = [*torch.linspace(9, 5, 200).tolist(), 1.0, 2.0, 3.0, 4.0]
    crosscoder, store = fires(strength, [0] * 200 + [1, 1, 2, 2])
    found = measure_activity(crosscoder, store, top=3, batch_size=batch_size).top_examples.indices[0].tolist()
    assert found == [0, 203, 201]


def test_top_examples_do_not_depend_on_the_batch_size():
    crosscoder, acts = planted_crosscoder()
    acts = torch.cat([acts, acts])  # ties
    a, b = (measure_activity(crosscoder, acts, top=6, batch_size=size) for size in (600, 37))
    assert torch.equal(a.top_examples.indices, b.top_examples.indices)
    torch.testing.assert_close(a.frequency, b.frequency)
    assert a.metrics["fvu"] == pytest.approx(b.metrics["fvu"], rel=1e-4)


def test_save_and_load(tmp_path):
    crosscoder, acts = planted_crosscoder()
    for atlas in (analyze(crosscoder), analyze(crosscoder, acts)):
        again = Atlas.load(atlas.save(tmp_path / "atlas"))
        for name in ("autocorrelation", "block_norms", "spectrum", "dead", "similarities", "frequency", "mean_act"):
            first, second = getattr(atlas, name), getattr(again, name)
            assert (first is None and second is None) or torch.equal(first, second)
        assert again.table() == atlas.table()
        assert (again.metrics, again.tolerance) == (atlas.metrics, atlas.tolerance)
        assert again.config == atlas.config
        for family in range(len(atlas.families)):
            assert again.families.members(family) == atlas.families.members(family)
        for first, second in zip(atlas.stabilizers, again.stabilizers, strict=True):
            assert np.array_equal(first.mask, second.mask)
            assert (first.label, first.axis, first.score) == (second.label, second.axis, second.score)
        if atlas.top_examples is not None:
            assert torch.equal(atlas.top_examples.indices, again.top_examples.indices)
            assert torch.equal(atlas.top_examples.acts, again.top_examples.acts)
    assert sorted(p.name for p in (tmp_path / "atlas").iterdir()) == ["atlas.json", "atlas.safetensors"]


def test_damaged_files(tmp_path):
    crosscoder, _ = planted_crosscoder()
    path = analyze(crosscoder).save(tmp_path / "atlas")
    with pytest.raises(DataError, match="holds no readable atlas"):
        Atlas.load(tmp_path)
    tensors = path / "atlas.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="is damaged"):
        Atlas.load(path)
    tensors.write_bytes(whole)
    values = json.loads((path / "atlas.json").read_text())
    (path / "atlas.json").write_text(json.dumps(values | {"format_version": 99}))
    with pytest.raises(DataError, match="version 99"):
        Atlas.load(path)
    (path / "atlas.json").write_text("[]")
    with pytest.raises(DataError, match="holds no readable atlas"):
        Atlas.load(path)


def test_tables(tmp_path):
    crosscoder, acts = planted_crosscoder()
    atlas = analyze(crosscoder, acts)
    rows = atlas.table()
    assert [row["latent"] for row in rows] == list(range(atlas.n_latents))
    assert json.loads(atlas.write_table(tmp_path / "t.json").read_text()) == rows
    with open(atlas.write_table(tmp_path / "deep" / "t.CSV"), newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["label"] for row in read] == [row["label"] for row in rows]
    assert read[-1]["family"] == ""
    with pytest.raises(ArgumentError, match=r"\.csv or \.json"):
        atlas.write_table(tmp_path / "t.xlsx")


def test_bad_weights_and_arguments():
    crosscoder, acts = planted_crosscoder()
    for options in ({"tolerance": 1.0}, {"tolerance": -0.1}, {"family_threshold": 0.0}, {"top": 0}, {"batch_size": 0}):
        with pytest.raises(ArgumentError):
            analyze(crosscoder, **options)
    with pytest.raises(ArgumentError, match="orbits"):
        analyze(crosscoder, acts[:, :4])
    with pytest.raises(ArgumentError, match="no examples"):
        analyze(crosscoder, acts[:0])
    with pytest.raises(ArgumentError, match="orbits"):
        analyze(crosscoder, 3)
    with torch.no_grad():
        crosscoder.W_dec[5, 1, 2] = float("nan")
        crosscoder.W_dec[7, 0, 0] = float("inf")
    with pytest.raises(ArgumentError, match="2 latents, first in latent 5"):
        analyze(crosscoder)


@pytest.mark.parametrize("name", ["C1", "C2", "C5", "D1", "D2", "D3"])
def test_small_groups_and_single_latents(name, tmp_path):
    crosscoder = GroupCrosscoder(CrosscoderConfig(group=name, d_in=3, n_latents=1, k=1, encoder="orbit"))
    acts = torch.randn(5, crosscoder.group.order, 3, generator=torch.Generator().manual_seed(0))
    for orbits in (None, acts):
        atlas = analyze(crosscoder, orbits)
        assert len(atlas.table()) == 1
        Atlas.load(atlas.save(tmp_path / name))
    with torch.no_grad():
        crosscoder.W_dec.fill_(1.0)
    kind = analyze(crosscoder).kinds
    assert kind == (["none"] if name == "C1" else ["invariant"])
    with torch.no_grad():
        crosscoder.W_dec.zero_()
    assert analyze(crosscoder).kinds == ["dead"]


def test_explicit_tolerance_is_used():
    crosscoder, _ = planted_crosscoder(dead=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        crosscoder.W_dec += 0.3 * torch.randn(crosscoder.W_dec.shape, generator=generator) / (8 * 64) ** 0.5
    strict, loose = analyze(crosscoder, tolerance=0.01), analyze(crosscoder, tolerance=0.2)
    assert strict.tolerance == 0.01
    symmetric = [sum(s.order > 1 for s in atlas.stabilizers) for atlas in (strict, loose)]
    assert symmetric[0] < 0.5 * symmetric[1]
