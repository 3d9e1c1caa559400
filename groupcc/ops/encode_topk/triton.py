"""encode_topk on GPUs: x [N, M], W_enc [M, L], b_enc [L] → acts [N, k], indices [N, k].

In 16-bit types the product never leaves the chip:

1. Every 16th latent's pre-activations are computed as a matrix [N, L / 16]. Their r-th largest is a row's threshold, r
   so large (four standard deviations) that k of all latents lie above it, and so small that a few k do.
2. One product over the other latents, its tiles compared with the threshold in registers: 15/16 of the work of the
   whole product, which is the floor. What lies above goes to the row's list, at a place that an atomic counter gives.
   So the list's order is left to chance, but the last step sorts by value and latent, and no result depends on it.
3. Each row's list is sorted. Rows with fewer than k above the threshold, or more than fit, are done again densely.

The threshold comes from the same batch, not from the step before, so that the op keeps no state and equal inputs give
equal results. It costs no work, since the sample is part of the product. One wait for the device, for the rows to redo.

Triton has no float32 product that is both fast and as exact as PyTorch's, so there blocks of rows go through PyTorch's
product and topk's kernel; so do small dictionaries.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import triton
import triton.language as tl

from groupcc.ops._triton import topk
from groupcc.ops._triton.decode import decode
from groupcc.ops._triton.keys import count, entry_of, key_of, key_of_entry, write_largest
from groupcc.ops._triton.latent_sum import latent_sum, too_wide
from groupcc.ops._triton.launch import Build, dot, fused, next_power_of_2, why_not
from groupcc.ops.encode_topk import Args, Backward

__all__ = ["backward", "builds", "forward", "unsupported"]

SAMPLE = 16
"""One latent in so many sets the threshold."""

_DENSE_BYTES = 64 << 20  # pre-activations of one block of rows
_MOST_SLOTS = 2048
_HOPPER = triton.Config({"BLOCK_N": 128, "BLOCK_L": 256, "BLOCK_M": 64, "PARTS": 8}, num_warps=8, num_stages=3)
_OTHERS = triton.Config({"BLOCK_N": 128, "BLOCK_L": 128, "BLOCK_M": 32, "PARTS": 4}, num_warps=8, num_stages=3)


def unsupported(args: Args) -> str | None:
    x, W_enc, _, k = args
    return topk.unsupported(x.dtype, W_enc.shape[1], k) or why_not(args) or too_wide(W_enc.t())


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    if not pays(args):
        return _dense(args)
    acts, indices, redo = _screened(args)
    rows = redo.nonzero().flatten()
    if len(rows):
        acts[rows], indices[rows] = _dense(args._replace(x_NM=args.x_NM[rows]))
    return acts, indices


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    M, L = args.W_enc_ML.shape
    grad = torch.where(args.acts_NK > 0, args.grad_acts_NK, 0)
    sums = latent_sum(grad, args.indices_NK, args.x_NM, L, value_sums=True)
    assert sums.values is not None
    if not args.need_x:
        return args.x_NM.new_empty(0, M), sums.rows.t(), sums.values
    d_x = decode(grad, args.indices_NK, args.W_enc_ML.t()[:, None], None)
    return d_x[:, 0], sums.rows.t(), sums.values


def pays(args: Args) -> bool:
    """Whether the product is screened: 16-bit types, and lists much shorter than the rows that they replace."""
    x, L = args.x_NM, args.W_enc_ML.shape[1]
    return x.dtype.itemsize == 2 and len(x) >= 64 and _sizes(args.k)[1] <= min(L // 8, _MOST_SLOTS)


def _sizes(k: int) -> tuple[int, int]:
    """The rank in the sample that sets the threshold, and the length of a row's list.

    About k / SAMPLE of the k largest are in the sample, give or take the root of that; the r-th largest of the sample
    has SAMPLE · r ± SAMPLE · √r of all latents above it. Four standard deviations each way.
    """
    expected = k / SAMPLE
    rank = math.ceil(expected + 4 * math.sqrt(expected)) + 1
    return rank, next_power_of_2(math.ceil(SAMPLE * (rank + 4 * math.sqrt(rank))))


def _dense(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference, a block of rows at a time."""
    x_NM, W_enc_ML, b_enc_L, k = args
    N, L = x_NM.shape[0], W_enc_ML.shape[1]
    acts, indices = x_NM.new_empty(N, k), x_NM.new_empty(N, k, dtype=torch.int64)
    rows = max(_DENSE_BYTES // (L * x_NM.itemsize), 64)
    for block in (slice(start, start + rows) for start in range(0, N, rows)):
        acts[block], indices[block] = topk.topk(torch.addmm(b_enc_L, x_NM[block], W_enc_ML), k)
    return acts, indices


def _screened(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """acts and indices, and which rows [N] are not right."""
    x, W_LM, b, k = args.x_NM.contiguous(), args.W_enc_ML.t().contiguous(), args.b_enc_L.contiguous(), args.k
    (N, M), L = x.shape, W_LM.shape[0]
    rank, SLOTS = _sizes(k)
    sample = torch.addmm(b[::SAMPLE], x, W_LM[::SAMPLE].t())
    S = sample.shape[1]
    first = topk.topk(sample, rank)[1]
    entries = x.new_empty(N, SLOTS, dtype=torch.int64)
    counts = x.new_empty(N, dtype=torch.int32)
    thresholds = x.new_empty(N, dtype=torch.float32)
    seed_kernel[(N,)](
        sample, first, entries, counts, thresholds, S, rank, SLOTS, SAMPLE=SAMPLE, WIDTH=next_power_of_2(rank)
    )
    config = _HOPPER if x.is_cuda and torch.cuda.get_device_capability(x.device)[0] == 9 and _nvidia() else _OTHERS
    tiles = triton.cdiv(N, config.kwargs["BLOCK_N"]) * triton.cdiv(L - S, config.kwargs["BLOCK_L"])
    screen_kernel[(tiles,)](
        x,
        W_LM,
        b,
        thresholds,
        counts,
        entries,
        N,
        M,
        L,
        SLOTS,
        SAMPLE=SAMPLE,
        **config.kwargs,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    acts, indices = x.new_empty(N, k), x.new_empty(N, k, dtype=torch.int64)
    redo = x.new_empty(N, dtype=torch.bool)
    choose_kernel[(N,)](
        entries, counts, thresholds, acts, indices, redo, k, SLOTS=SLOTS, KP=max(next_power_of_2(k), 2), num_warps=8
    )
    return acts, indices, redo


def _nvidia() -> bool:
    return torch.version.hip is None


# sample [N, S], first int64 [N, rank] (indices of its largest) → entries int64 [N, SLOTS], counts [N], thresholds [N].
@fused
@triton.jit
def seed_kernel(sample, first, entries, counts, thresholds, S, rank, SLOTS, SAMPLE: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    slots = tl.arange(0, WIDTH)
    index = tl.load(first + row * rank + slots, mask=slots < rank, other=0)
    value = tl.load(sample + row * S + index)
    entry = entry_of(key_of(value), (index * SAMPLE).to(tl.int32))
    tl.store(entries + row * SLOTS + slots, entry, mask=slots < rank)
    tl.store(counts + row, rank)
    last = tl.load(first + row * rank + rank - 1)
    tl.store(thresholds + row, tl.load(sample + row * S + last).to(tl.float32))


# x [N, M], W [L, M], b [L], thresholds [N] → entries int64 [N, SLOTS] from counts[n] on, of latents not in the sample.
@fused
@triton.jit
def screen_kernel(
    x,
    W,
    b,
    thresholds,
    counts,
    entries,
    N,
    M,
    L,
    SLOTS,
    SAMPLE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_M: tl.constexpr,
    PARTS: tl.constexpr,
):
    n_columns = L - tl.cdiv(L, SAMPLE)
    # Eight blocks of rows pass over the latents together: their tiles of x and one of W stay in the L2.
    tiles_n, tiles_l = tl.cdiv(N, BLOCK_N), tl.cdiv(n_columns, BLOCK_L)
    tile = tl.program_id(0)
    first_n = tile // (8 * tiles_l) * 8
    group = tl.minimum(tiles_n - first_n, 8)
    block_n = first_n + tile % (8 * tiles_l) % group
    block_l = tile % (8 * tiles_l) // group
    n = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    column = block_l * BLOCK_L + tl.arange(0, BLOCK_L)
    # Rows beyond the end are read as the last one; what they give is dropped.
    x_rows = x + tl.minimum(n, N - 1).to(tl.int64)[:, None] * M
    W_rows = W + _latent(tl.minimum(column, n_columns - 1), SAMPLE).to(tl.int64)[:, None] * M
    acc = tl.zeros([BLOCK_N, BLOCK_L], tl.float32)
    for start in range(0, M, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)[None, :]
        x_tile = tl.load(x_rows + m, mask=m < M, other=0.0)
        W_tile = tl.load(W_rows + m, mask=m < M, other=0.0)
        acc = dot(x_tile, tl.trans(W_tile), acc)
    _append(acc, b, thresholds, counts, entries, N, n_columns, SLOTS, n, block_l * BLOCK_L, SAMPLE, PARTS)


@triton.jit
def _latent(column, SAMPLE: tl.constexpr):
    """The column-th latent that is not in the sample."""
    return column // (SAMPLE - 1) * SAMPLE + 1 + column % (SAMPLE - 1)


@triton.jit
def _append(
    acc, b, thresholds, counts, entries, N, n_columns, SLOTS, n, first, SAMPLE: tl.constexpr, PARTS: tl.constexpr
):
    """Adds what lies above its row's threshold to the lists, PARTS of the tile one after another to save registers."""
    if PARTS > 1:
        WIDTH: tl.constexpr = acc.shape[1] // 2
        left, right = tl.split(tl.permute(tl.reshape(acc, [acc.shape[0], 2, WIDTH]), [0, 2, 1]))
        _append(left, b, thresholds, counts, entries, N, n_columns, SLOTS, n, first, SAMPLE, PARTS // 2)
        _append(right, b, thresholds, counts, entries, N, n_columns, SLOTS, n, first + WIDTH, SAMPLE, PARTS // 2)
    else:
        column = first + tl.arange(0, acc.shape[1])
        latent = _latent(column, SAMPLE)
        acc += tl.load(b + latent, mask=column < n_columns, other=0.0).to(tl.float32)[None, :]
        threshold = tl.load(thresholds + n, mask=n < N, other=0.0)
        # Before rounding to the dtype of x, which cannot lift a sum over a threshold of that dtype. NaN passes.
        above = tl.where(acc <= threshold[:, None], 0, 1) * ((n < N)[:, None] & (column < n_columns)[None, :])
        place = tl.cumsum(above, 1)
        total = tl.max(place, 1)
        start = tl.atomic_add(counts + n, total, mask=total > 0, sem="relaxed")
        place += start[:, None] - 1
        entry = entry_of(key_of(acc.to(b.dtype.element_ty)), latent[None, :])
        at = n.to(tl.int64)[:, None] * SLOTS + place
        tl.store(entries + at, entry, mask=(above > 0) & (place < SLOTS))


# entries int64 [N, SLOTS], counts [N], thresholds [N] → acts [N, k], indices [N, k], redo bool [N].
@fused
@triton.jit
def choose_kernel(entries, counts, thresholds, acts, indices, redo, k, SLOTS: tl.constexpr, KP: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    n = tl.load(counts + row)
    entries += row * SLOTS
    threshold = key_of(tl.load(thresholds + row).to(acts.dtype.element_ty))
    slots = tl.arange(0, SLOTS)
    entry = tl.load(entries + slots, mask=slots < n, other=-(2**63))
    above = count(key_of_entry(entry) > threshold, 0)
    tl.store(redo + row, (n > SLOTS) | (above < k))
    write_largest(entries, tl.minimum(n, SLOTS), acts + row * k, indices + row * k, k, SLOTS, KP)


def builds() -> list[Build]:
    """The product in each dtype on each GPU; the lists' kernels at k = 64."""
    rank, SLOTS = _sizes(64)
    found = []
    for dtype in ("bf16", "fp16"):
        types = {
            **dict.fromkeys(("x", "W", "b", "sample", "acts"), f"*{dtype}"),
            **dict.fromkeys(("entries", "first", "indices"), "*i64"),
            "thresholds": "*fp32",
            "counts": "*i32",
            "redo": "*i1",
            **dict.fromkeys(("N", "M", "L", "S", "SLOTS", "rank", "k"), "i32"),
        }
        for config, targets in ((_HOPPER, ("sm_90",)), (_OTHERS, ("sm_80", "gfx942"))):
            build = Build.of(screen_kernel, types, config, {"SAMPLE": SAMPLE}, ("M", "L", "SLOTS"))
            found.append(replace(build, tensor_cores=True, targets=targets))
        small = triton.Config({"SAMPLE": SAMPLE, "WIDTH": next_power_of_2(rank)}, num_warps=4)
        found.append(Build.of(seed_kernel, types, small))
        found.append(Build.of(choose_kernel, types, triton.Config({"SLOTS": SLOTS, "KP": 64}, num_warps=8)))
    return found
