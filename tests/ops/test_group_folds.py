"""A group's matrices in parts, and what runs in C++ by them: transforms, the strongest pose without z in memory."""

import pytest
import torch

import groupcc
from groupcc import ops
from helpers.backends import COMPILED, running

pytest.importorskip("groupcc._C")
from groupcc.ops.group_correlate.fourier import group_correlate_fourier
from groupcc.ops.group_correlate.plan import plan_of
from groupcc.ops.group_folds import folds_of

SIGNS = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]


@pytest.mark.parametrize("which", ["left", "right", "inverse"])
@pytest.mark.parametrize(
    ("name", "classes"),
    [("C1", 1), ("C2", 2), ("C9", 1), ("C12", 2), ("D1", 2), ("D2", 4), ("D7", 2), ("D12", 4), ("D32", 4)],
)
def test_the_parts_make_the_matrix(name, classes, which):
    group = groupcc.group(name)
    matrix = getattr(plan_of(group, torch.float64, torch.device("cpu")), which)
    folds = folds_of(group, which, torch.float64)
    S, Q = folds.elements.shape
    assert (classes, group.order // classes) == (S, Q)
    assert folds.elements.flatten().sort().values.tolist() == list(range(group.order))
    assert folds.starts.tolist()[0] == 0
    assert folds.starts.tolist()[-1] == len(matrix)
    made, forth = torch.full_like(matrix, torch.nan), []
    for s in range(S):
        rows = folds.order[folds.starts[s] : folds.starts[s + 1]]
        part = folds.back.view(-1, Q)[folds.starts[s] : folds.starts[s + 1]]
        forth.append(part.t().flatten())
        for other in range(S):
            made[rows[:, None], folds.elements[other]] = SIGNS[s][other] * part
    torch.testing.assert_close(made, matrix, rtol=0, atol=1e-12)
    assert torch.equal(torch.cat(forth), folds.forth)


def inputs(name, N, L, D, dtype):
    generator, group = torch.Generator().manual_seed(3), groupcc.group(name)
    shapes = ((N, group.order, D), (L, group.order, D), (L,))
    return group, [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def exact(given, group):
    """z + b [N, L, G] in float64."""
    with ops.use_backend("reference"):
        acts, W, b = (tensor.double() for tensor in given)
        return ops.group_correlate(acts, W, group) + b[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "N", "L", "D"),
    [("C1", 3, 2, 5), ("C2", 7, 33, 4), ("C9", 230, 5, 7), ("D1", 5, 17, 6), ("D7", 11, 40, 19), ("D12", 201, 19, 13),
     ("D32", 30, 70, 50), ("D5", 40, 16, 2100)],
)  # fmt: skip
@pytest.mark.parametrize("implementation", COMPILED)
def test_the_strongest_pose_out_of_the_cache(implementation, name, N, L, D, dtype):
    """Sizes within and across vectors, panels and chunks; errors at most twice those of PyTorch's own transform."""
    group, given = inputs(name, N, L, D, dtype)
    z = exact(given, group)
    with running(implementation, "group_correlate_max"), torch.no_grad():
        assert ops.keeps_no_poses(*given, group)
        values, poses = ops.group_correlate_max(*given, group)
        pytorch = group_correlate_fourier(*given[:2], group) + given[2][:, None]
    allowed = 2 * float((pytorch - z).abs().max()) + 2 * torch.finfo(dtype).eps * float(z.abs().max())
    assert float((values - z.amax(2)).abs().max()) <= allowed
    assert float((z.amax(2) - z.gather(2, poses[:, :, None])[:, :, 0]).max()) <= allowed


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_same_for_any_threads(threads):
    group, given = inputs("D6", 150, 20, 30, torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for number in (1, threads):
            torch.set_num_threads(number)
            with ops.use_backend("cpp"), torch.no_grad():
                found.append((*ops.group_correlate_max(*given, group), ops.group_correlate(*given[:2], group)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_poses_are_kept_for_gradients():
    group, (acts, W, b) = inputs("D4", 4, 5, 6, torch.float32)
    with ops.use_backend("cpp"):
        assert ops.keeps_no_poses(acts, W, b, group)
        W.requires_grad_()
        assert not ops.keeps_no_poses(acts, W, b, group)
        values, _ = ops.group_correlate_max(acts, W, b, group)
        values.sum().backward()
        assert float(W.grad.abs().max()) > 0
        with torch.no_grad():
            assert ops.keeps_no_poses(acts, W, b, group)


@pytest.mark.parametrize("implementation", COMPILED)
def test_nan_is_the_largest_and_of_equals_the_first_counts(implementation):
    group = groupcc.group("D2")
    acts, b = torch.zeros(1, 4, 1), torch.zeros(3)
    acts[0, group.identity] = 1
    W = torch.tensor([[1.0, 5.0, 5.0, 2.0], [-4.0, -4.0, -4.0, -4.0], [0.0, 1.0, 2.0, 3.0]])[:, :, None]
    with running(implementation, "group_correlate_max"), torch.no_grad():
        values, poses = ops.group_correlate_max(acts, W, b, group)
        assert values.tolist() == [[5, -4, 3]]
        assert poses.tolist() == [[1, 0, 3]]
        acts[0, 2] = torch.nan
        values, poses = ops.group_correlate_max(acts, W, b, group)
        assert values.isnan().all()
        assert not poses.any()
        acts[:] = 0
        acts[0, group.identity] = torch.inf  # z of a block at the identity: infinity there, NaN in the other poses
        values, poses = ops.group_correlate_max(acts, torch.eye(4)[:1, :, None], b[:1], group)
        assert values.isnan().all()
        assert poses.tolist() == [[1]]
