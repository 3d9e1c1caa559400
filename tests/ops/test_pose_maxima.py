"""pose_maxima: by hand, and every implementation against a plain loop."""

import math

import pytest
import torch

import groupcc
from groupcc import ops
from helpers.backends import COMPILED, running

IMPLEMENTATIONS = ["reference", *COMPILED[-1:]]


def by_loop(z, near, group, count):
    """Greedy, one example and one comparison at a time."""
    between = group.cayley[group.inverse]
    rows = []
    for example in z.tolist():
        left = {(latent, h): value for latent, row in enumerate(example) for h, value in enumerate(row)}
        taken = []
        for _ in range(count):
            best = max(left, key=lambda at: (left[at], -at[0], -at[1]), default=None)
            if best is None:
                taken.append((None, -math.inf))
                continue
            taken.append((best[0] * group.order + best[1], left[best]))
            left = {
                at: value for at, value in left.items() if at[0] != best[0] or not near[at[0], between[best[1], at[1]]]
            }
        rows.append(taken)
    return rows


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_by_hand(implementation):
    """C4: each pose excludes itself and, for latent 0 alone, the next one counter-clockwise."""
    near = torch.tensor([[True, True, False, False], [True, False, False, False]])
    z = torch.tensor([[[1.0, 9.0, 8.0, 7.0], [2.0, 2.0, 0.0, -1.0]]])
    with running(implementation, "pose_maxima"):
        taken, values = ops.pose_maxima(z, near, groupcc.group("C4"), 6)
    assert taken[0].tolist() == [1, 3, 4, 5, 6, 7]
    assert values[0].tolist() == [9.0, 7.0, 2.0, 2.0, 0.0, -1.0]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("name", "N", "L"), [("C1", 3, 5), ("D3", 5, 4), ("D4", 4, 1), ("C7", 0, 3)])
def test_against_a_loop(implementation, name, N, L, dtype):
    """With ties, as rounded values have them, reflections, any strides, and more asked for than there is."""
    group = groupcc.group(name)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(N, group.order, L, generator=generator).mul(2).round().div(2).to(dtype).transpose(1, 2)
    near = torch.rand(L, group.order, generator=generator) < 0.3
    near[:, 0] = True
    count = L * group.order
    with running(implementation, "pose_maxima"):
        taken, values = ops.pose_maxima(z, near, group, count)
    assert values.dtype == dtype
    assert taken.shape == values.shape == (N, count)
    for row, got_taken, got_values in zip(by_loop(z, near, group, count), taken.tolist(), values.tolist(), strict=True):
        for (wanted, value), found, got in zip(row, got_taken, got_values, strict=True):
            assert got == value
            assert 0 <= found < count
            assert wanted is None or found == wanted


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_nan_comes_first(implementation):
    z = torch.tensor([[[1.0, float("nan")], [float("inf"), 0.0]]])
    with running(implementation, "pose_maxima"):
        taken, values = ops.pose_maxima(z, torch.eye(2, dtype=torch.bool)[[0, 0]], groupcc.group("C2"), 2)
    assert taken.tolist() == [[1, 2]]
    assert math.isnan(values[0, 0])
    assert values[0, 1] == math.inf


@pytest.mark.skipif(not COMPILED, reason="no extension")
def test_opcheck_and_threads():
    group, before = groupcc.group("D3"), torch.get_num_threads()
    z = torch.randn(6000, 40, 6, generator=torch.Generator().manual_seed(0))  # long enough for threads to meet
    near = torch.eye(6, dtype=torch.bool)[:1].expand(40, 6)
    torch.library.opcheck(torch.ops.groupcc.pose_maxima.default, (z[:7, :3], near[:3], "D3", 4, "cpp"))
    try:
        torch.set_num_threads(3)
        with ops.use_backend("cpp"):
            found = ops.pose_maxima(z, near, group, 18)
    finally:
        torch.set_num_threads(before)
    with ops.use_backend("reference"):
        expected = ops.pose_maxima(z, near, group, 18)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"z": torch.ones(2, 3, 5)}, "z: expected .* G = 6"),
        ({"z": torch.ones(2, 3, 6, dtype=torch.int64)}, "z: expected a floating-point"),
        ({"near": torch.ones(3, 6)}, r"near: expected bool \[L, G\] = \(3, 6\)"),
        ({"near": torch.ones(2, 6, dtype=torch.bool)}, "near: expected bool"),
        ({"count": 0}, "count: expected a whole number from 1"),
        ({"count": 19}, "count: expected a whole number from 1 to L·G = 18"),
    ],
)
def test_errors(changed, message):
    given = {"z": torch.ones(2, 3, 6), "near": torch.ones(3, 6, dtype=torch.bool), "count": 2} | changed
    with pytest.raises(groupcc.errors.ArgumentError, match=message):
        ops.pose_maxima(given["z"], given["near"], groupcc.group("D3"), given["count"])
