"""What group_decode_loss and group_encode_at say of arguments that do not fit."""

import pytest
import torch

import groupcc
from groupcc import ops
from helpers.backends import COMPILED, running
from helpers.group_decode_cases import sample

GOOD = {"acts": (4, 3), "indices": (4, 3), "poses": (4, 3), "W": (5, 6, 2), "b": (1, 2), "x": (4, 6, 2)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acts": torch.ones(4, 2)}, "acts: expected torch.float32 of shape"),
        ({"poses": torch.zeros(4, 2, dtype=torch.int64)}, "poses: expected int64"),
        ({"indices": torch.zeros(4, 3)}, "indices: expected int64"),
        ({"W": torch.ones(5, 6, 3)}, r"W_dec: expected torch.float32 of shape \[L, G, D\] = \[L, 6, 2\]"),
        ({"W": torch.ones(5, 7, 2)}, "W_dec: expected"),
        ({"W": torch.ones(5, 7, 2), "x": torch.ones(4, 7, 2)}, r"W_dec: expected .* \[L, 6, 2\]"),
        ({"b": torch.ones(6, 2)}, r"b_dec: expected torch.float32 of shape \[1, D\] = \[1, 2\]"),
        ({"x": torch.ones(3, 6, 2)}, "target: expected"),
        (
            {name: torch.ones(size, dtype=torch.int64) for name, size in GOOD.items()},
            "target: expected a floating-point tensor",
        ),
    ],
)
def test_errors_of_decode(changed, message):
    given = {name: torch.ones(size) for name, size in GOOD.items()}
    given |= {name: torch.zeros(4, 3, dtype=torch.int64) for name in ("indices", "poses")} | changed
    with pytest.raises(groupcc.errors.ArgumentError, match=message):
        ops.group_decode_loss(
            given["acts"], given["indices"], given["poses"], given["W"], given["b"], given["x"], groupcc.group("D3")
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.ones(3, 6, 2)}, "x: expected .* N = 4 and G = 6"),
        ({"x": torch.ones(4, 6, 2, dtype=torch.int64)}, "x: expected a floating-point"),
        ({"W": torch.ones(5, 6, 2).double()}, "W_enc: expected torch.float32"),
        ({"b": torch.ones(4)}, r"b_enc: expected torch.float32 of shape \[L\] = \[5\]"),
        ({"known": torch.ones(4, 2)}, "known: expected torch.float32"),
        ({"poses": torch.zeros(4, 3)}, "poses: expected int64"),
    ],
)
def test_errors_of_encode(changed, message):
    given = {name: torch.ones(size) for name, size in GOOD.items()} | {"b": torch.ones(5), "known": None}
    given |= {name: torch.zeros(4, 3, dtype=torch.int64) for name in ("indices", "poses")} | changed
    with pytest.raises(groupcc.errors.ArgumentError, match=message):
        ops.group_encode_at(
            given["x"],
            given["W"],
            given["b"],
            given["indices"],
            given["poses"],
            groupcc.group("D3"),
            known=given["known"],
        )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"acts": torch.ones(4, 2)}, r"acts: expected torch.float32 of shape \[N, K\] = \(4, 3\).* \(4, 2\)"),
        ({"acts": torch.ones(4, 3).double()}, "acts: expected torch.float32 .* got torch.float64"),
        ({"poses": torch.zeros(4, 3)}, "poses: expected int64"),
        ({name: torch.zeros(5, 3, dtype=torch.int64) for name in ("indices", "poses")}, r"acts: .* = \(4, 3\)"),
    ],
)
def test_errors_of_an_encoding(changed, message):
    pytest.importorskip("groupcc._C")
    encoding = ops.group_encoding(torch.ones(4, 6, 2), torch.ones(5, 6, 2), torch.ones(5), groupcc.group("D3"), 3)
    given = {"acts": torch.ones(4, 3)} | {name: torch.zeros(4, 3, dtype=torch.int64) for name in ("indices", "poses")}
    given |= changed
    with ops.use_backend("cpp"), pytest.raises(groupcc.errors.ArgumentError, match=message):
        encoding.with_gradients(given["indices"], given["poses"], given["acts"])


@pytest.mark.parametrize("implementation", ["reference", *COMPILED[-1:]])
def test_what_does_not_exist(implementation):
    acts, indices, poses, W, b, x = sample(("D3", 4, 3, 5, 6), torch.float32)
    group = groupcc.group("D3")
    one_bad = [poses.clone() for _ in range(3)]
    one_bad[0][0, 0], one_bad[1][-1, -1], one_bad[2][1, 1] = 6, 6, -1
    if implementation == "reference":  # which indexes as Python does
        del one_bad[2]
    for bad_indices, bad_poses in ((indices + 5, poses), *((indices * 0, bad) for bad in (poses + 6, *one_bad))):
        with (
            running(implementation, "group_decode_loss"),
            pytest.raises((IndexError, RuntimeError), match=r"ndex|ndic|pose"),
        ):
            ops.group_decode_loss(acts, bad_indices, bad_poses, W, b, x, group)
        with (
            running(implementation, "group_encode_at"),
            pytest.raises((IndexError, RuntimeError), match=r"ndex|ndic|pose"),
        ):
            ops.group_encode_at(x, W, W[:, 0, 0], bad_indices, bad_poses, group)
