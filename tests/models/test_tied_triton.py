"""Tied crosscoders on the Triton kernels, which keep no pre-activations: the same outputs, losses and gradients."""

import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.errors import ArgumentError
from groupcc.models.forms.encodings import FormedEncoding
from groupcc.ops import _encodings
from helpers.backends import DEVICE
from helpers.tied_samples import crosscoder, orbits

pytest.importorskip("triton")


def step(backend, made, acts):
    with groupcc.use_backend(backend):
        out = made(acts)
        out.losses["total"].backward()
    gradients = {name: parameter.grad for name, parameter in made.named_parameters()}
    return out, gradients


@pytest.mark.parametrize(
    ("dead", "settings"),
    [
        (0, {"sparsity": "topk"}),
        (20, {"sparsity": "topk"}),
        (20, {"sparsity": "batchtopk"}),
        (20, {"tied": "residual", "residual_penalty": 1.0}),
    ],
    ids=str,
)
def test_a_training_step(dead, settings, monkeypatch):
    steps = []
    for backend in ("reference", "triton"):
        made = crosscoder(group="D3", n_latents=24, k=1, dead_after=20, aux_k=2, **settings)
        made.since_fired[:dead] = 30
        for name, parameter in made.named_parameters():
            if name.startswith("residual"):
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
        device = DEVICE.get(backend, "cpu")
        with monkeypatch.context() as patch:
            if backend == "triton":
                patch.setattr(ops, "group_correlate", None)
            steps.append(step(backend, made.to(device), orbits(made).to(device)))
    (expected, wanted), (got, gradients) = steps
    active = expected.latents.acts > 0
    for one, other in zip(got.latents, expected.latents, strict=True):
        torch.testing.assert_close(one.cpu()[active], other[active])
    assert (float(expected.losses["aux"].detach()) > 0) == bool(dead)
    for name, loss in expected.losses.items():
        torch.testing.assert_close(got.losses[name].cpu(), loss)
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name].cpu(), gradient)


@pytest.mark.parametrize("settings", [{"pose": "nms", "k": 12, "pose_distance": 0.0}, {"encoder": "identity"}], ids=str)
def test_other_ways_form_them(settings):
    found = []
    for backend in ("reference", "triton"):
        made = crosscoder(group="D3", **settings).to(DEVICE.get(backend, "cpu"))
        with groupcc.use_backend(backend):
            found.append(made.encode(orbits(made).to(DEVICE.get(backend, "cpu"))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other.cpu(), one)


def test_formed_ones_are_read():
    made, latents = crosscoder(), torch.tensor([3, 1])
    acts = orbits(made)
    z = torch.randn(9, 5, 8, generator=torch.Generator().manual_seed(4))
    values, poses = FormedEncoding(made, acts, z).strongest(latents)
    assert torch.equal(values, z[:, latents].amax(2))
    assert torch.equal(z[:, latents].gather(2, poses[:, :, None])[:, :, 0], values)


@pytest.mark.parametrize("settings", [{"pose": "max"}, {"pose": "nms", "k": 12, "pose_distance": 0.0}], ids=str)
@pytest.mark.parametrize("S", [1, 6])
def test_encode_maps_forms_no_orbits(S, settings, monkeypatch):
    """The latents and gradients of `encode` of the gathered orbits."""
    generator = torch.Generator().manual_seed(6)
    maps, points = torch.randn(2, S, 5, 5, 6, generator=generator), 1 + 2 * torch.rand(6, 4, 2, generator=generator)
    found = []
    for backend in ("reference", "triton"):
        device = DEVICE.get(backend, "cpu")
        made, leaf = crosscoder(group="D3", **settings).to(device), maps.to(device).requires_grad_()
        with groupcc.use_backend(backend), monkeypatch.context() as patch:
            if backend == "triton":
                for op in ("orbit_gather", "group_correlate", "CORRELATE_MAX"):
                    patch.setattr(_encodings, op, None)
                latents = made.encode_maps(leaf, points)
            else:
                latents = made.encode(ops.orbit_gather(leaf, points, "bspline"))
            latents.acts.square().sum().backward()
        found.append((*latents, leaf.grad, made.W_enc.grad, made.b_enc.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other.cpu(), one)


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("settings", [{}, {"pose": "nms"}, {"encoder": "identity"}], ids=str)
def test_encode_maps_refuses_what_is_not_finite(settings, backend):
    """Infinite weights are not the maps' fault."""
    maps, points = torch.zeros(3, 1, 4, 4, 6), torch.ones(6, 3, 2)
    points[:, 1:] = 2
    device = DEVICE.get(backend, "cpu")
    made, maps = crosscoder(group="D3", **settings).to(device), maps.to(device)
    with groupcc.use_backend(backend):
        bad = maps.clone()
        bad[1, 0, 2, 2, 3] = float("inf")
        where = "row 4" if settings.get("encoder") else "image 1, position 1"
        with pytest.raises(ArgumentError, match=f"in 2 .*, .*first .*{where}"):
            made.encode_maps(bad, points, "bilinear")
        with pytest.raises(ArgumentError, match=r"points: expected \[G, P, 2\] with G = 6"):
            made.encode_maps(maps, points[:5], "bilinear")
        with torch.no_grad():
            made.W_enc[0, 0, 0] = float("inf")
        made.encode_maps(maps, points, "bilinear")
