"""What chosen latents make of moved orbits, by one function for every encoder and kind of tying."""

import pytest
import torch

from groupcc import CrosscoderConfig, GroupCrosscoder
from groupcc.analysis import translate
from groupcc.models import moved_pre_acts as module
from groupcc.models.moved_pre_acts import moved_pre_acts

G, L = 10, 4
KINDS = [(encoder, tied) for encoder in ("identity", "orbit") for tied in (False, True, "residual")]


def make(encoder, tied):
    """A crosscoder with every parameter off its start, under a group with reflections, and pairs for it."""
    made = GroupCrosscoder(CrosscoderConfig(group="D5", d_in=3, n_latents=L, k=2, encoder=encoder, tied=tied), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    acts = torch.randn(30, G, 3, generator=generator)
    latents = torch.randint(L, (30,), generator=generator)
    poses = torch.randint(G, (30,), generator=generator) if tied else None
    return made, acts, latents, poses


def at(pre, latents, poses):
    pairs = torch.arange(len(latents))
    return pre[pairs, latents] if poses is None else pre[pairs, latents, poses]


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("encoder", "tied"), KINDS)
def test_moved_input_is_that_of_translated_orbits(encoder, tied, in_parts, monkeypatch):
    if in_parts:
        monkeypatch.setitem(module.AT_ONCE, "cpu", 7 * G * G)
    made, acts, latents, poses = make(encoder, tied)
    with torch.no_grad():
        expected = [at(made.pre_acts(translate(acts, made.group, h)), latents, poses) for h in range(G)]
    found = moved_pre_acts(made, acts, latents, poses)
    torch.testing.assert_close(found, torch.stack(expected, 1), rtol=1e-4, atol=1e-5)
    assert not moved_pre_acts(made, acts.clone().requires_grad_(), latents, poses).requires_grad
    some = torch.tensor([7, 0, 3])
    torch.testing.assert_close(moved_pre_acts(made, acts, latents, poses, elements=some), found[:, some])
    rows = torch.randint(30, (30,), generator=torch.Generator().manual_seed(0))
    found = moved_pre_acts(made, acts, latents, poses, rows_P=rows)
    torch.testing.assert_close(found, moved_pre_acts(made, acts[rows], latents, poses), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("encoder", "tied"), [kind for kind in KINDS if kind[1]])
def test_a_moved_atom_is_another_pose_by_what_they_share(encoder, tied, in_parts, monkeypatch):
    if in_parts:
        monkeypatch.setitem(module.AT_ONCE, "cpu", 7 * G * G)
    made, acts, latents, poses = make(encoder, tied)
    found = moved_pre_acts(made, acts, latents, poses, moves="atom")
    some = torch.tensor([7, 0, 3])
    picked = moved_pre_acts(made, acts, latents, poses, moves="atom", elements=some)
    torch.testing.assert_close(picked, found[:, some])
    if tied == "residual":
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name.startswith("residual"):
                    parameter.zero_()
    cayley = torch.tensor(made.group.cayley)
    with torch.no_grad():
        pre = made.pre_acts(acts)
    expected = torch.stack([at(pre, latents, cayley[poses, h]) for h in range(G)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    moved = moved_pre_acts(made, acts, latents, poses)
    back = cayley[cayley[poses][:, torch.tensor(made.group.inverse)], torch.tensor(made.group.inverse)[poses][:, None]]
    alike = torch.allclose(found, moved.gather(1, back), rtol=1e-4, atol=1e-5)
    assert alike == (encoder == "orbit")


@pytest.mark.parametrize(("encoder", "tied"), KINDS)
def test_rows_of_atoms_read_what_pre_acts_reads(encoder, tied):
    made, acts, latents, poses = make(encoder, tied)
    W, b = made.form.encoder_rows(made, latents, poses)
    assert W.shape == (30, 1 if encoder == "identity" else G, 3)
    pre = (W * acts[:, : W.shape[1]]).sum((1, 2)) + b
    with torch.no_grad():
        torch.testing.assert_close(pre, at(made.pre_acts(acts), latents, poses), rtol=1e-4, atol=1e-5)


def test_no_pairs_and_the_dtype_of_the_acts():
    made, acts, latents, _ = make("orbit", False)
    assert moved_pre_acts(made, acts[:0], latents[:0]).shape == (0, G)
    assert moved_pre_acts(made, acts, latents[:0], rows_P=latents[:0]).shape == (0, G)
    double = moved_pre_acts(made, acts.double(), latents)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), moved_pre_acts(made, acts, latents), rtol=1e-4, atol=1e-5)
