"""The kernel of topk, which encode_topk launches too: pre_acts [N, L] → acts [N, k], indices [N, k].

One program a row, two reads of it, one from memory. First read: maxima of groups of the row. The k-th largest maximum
is a bound that k entries reach or pass; of random entries hardly more than k do where there are four groups for each.
Those few are gathered in the second read, which finds the row in L1 or L2, and sorted. Where ties or the order of a row
let more through than there are slots, the k-th entry itself is bisected and exactly k are gathered, equals by rising
index. So N·L·itemsize bytes are the floor.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from groupcc.ops._triton.keys import block_columns, count, entry_of, gather_row, row_keys, write_largest
from groupcc.ops._triton.launch import Build, next_power_of_2, tuned

K_LIMIT = 512
"""The largest k: the sort of 2·k entries is held in registers."""

_CONFIGS = [
    triton.Config({"BLOCK": 4096}, num_warps=8),
    triton.Config({"BLOCK": 2048}, num_warps=4),
]


def unsupported(dtype: torch.dtype, L: int, k: int) -> str | None:
    """Why the kernel takes no k of L latents of this dtype, or None."""
    if dtype == torch.float64:
        return "the Triton kernels take float32, bfloat16 or float16, got torch.float64"
    if L >= 2**31:
        return f"the Triton kernels number fewer than 2**31 latents, got {L}"
    if k > K_LIMIT:
        return f"the Triton kernel takes k up to {K_LIMIT}, got {k}"
    return None


def topk(pre_acts_NL: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """acts, indices [N, k]."""
    pre = pre_acts_NL if pre_acts_NL.stride(1) == 1 else pre_acts_NL.contiguous()
    N, L = pre.shape
    KP, SLOTS = _sizes(k)
    acts, indices = pre.new_empty(N, k), pre.new_empty(N, k, dtype=torch.int64)
    scratch = pre.new_empty(N, 2 * SLOTS, dtype=torch.int64)
    if N:
        topk_kernel[(N,)](pre, acts, indices, scratch, L, k, pre.stride(0), next_power_of_2(L), KP=KP, SLOTS=SLOTS)
    return acts, indices


def builds() -> list[Build]:
    """Every configuration at k = 64; the widest sort with the first."""
    found = []
    for dtype, k, configs in [
        *((dtype, 64, _CONFIGS) for dtype in ("bf16", "fp16", "fp32")),
        *((dtype, K_LIMIT, _CONFIGS[:1]) for dtype in ("bf16", "fp32")),
    ]:
        types = {
            **dict.fromkeys(("pre", "acts"), f"*{dtype}"),
            **dict.fromkeys(("indices", "scratch"), "*i64"),
            **dict.fromkeys(("L", "k", "about_L"), "i32"),
            "stride_n": "i64",
        }
        sizes = dict(zip(("KP", "SLOTS"), _sizes(k), strict=True))
        found += [Build.of(topk_kernel, types, config, sizes, ("L", "stride_n")) for config in configs]
    return found


def _sizes(k: int) -> tuple[int, int]:
    """The width of the final sort's result, and the slots for what passes the bound."""
    KP = max(next_power_of_2(k), 2)
    return KP, max(2 * KP, 64)


@triton.jit
def _maxima(pre, L, BLOCK: tl.constexpr, V: tl.constexpr):
    """Keys [BLOCK / V, V]: group j's maximum, of columns j, j + BLOCK, j + 2·BLOCK, …; −Inf where it is empty."""
    best = row_keys(pre, block_columns(0, BLOCK, V), L)
    for start in range(BLOCK, L, BLOCK):
        best = tl.maximum(best, row_keys(pre, block_columns(start, BLOCK, V), L))
    return best


@triton.jit
def _bound(best, L, k, KP: tl.constexpr, BLOCK: tl.constexpr):
    """A key that at least k groups reach, hardly more if no two are equal, and the largest key."""
    highest = tl.max(best)
    if L < BLOCK:  # some groups are empty
        bound = _bisected(tl.ravel(best), highest, k)
    else:
        MERGED: tl.constexpr = 4 * KP if 4 * KP < BLOCK else BLOCK
        bound = _bisected(tl.max(tl.reshape(best, [MERGED, BLOCK // MERGED]), 1), highest, k)
    return bound, highest


@triton.jit
def _bisected(keys, highest, k):
    """A key that at least k of `keys` reach, and at most an eighth more: the last rounds would cost more than that."""
    low = tl.min(keys).to(tl.int64)
    high = highest.to(tl.int64) + 1
    passing = 2 * k
    while (high - low > 1) & (passing > k + k // 8):
        middle = (low + high) >> 1
        n = count(keys >= middle.to(tl.int32), 0)
        passing = tl.where(n >= k, n, passing)
        high = tl.where(n >= k, high, middle)
        low = tl.where(n >= k, middle, low)
    return low.to(tl.int32)


@triton.jit
def _candidates(pre, entries, groups, best, L, bound, BLOCK: tl.constexpr, V: tl.constexpr, SLOTS: tl.constexpr):
    """Writes the row's entries from `bound` up, in any order, reading only the groups that have some; returns how many.

    More than SLOTS: the rest is not written.
    """
    passing = best >= bound
    n = count(passing, 1)
    slot = tl.cumsum(n, 0) - n
    n_groups = tl.sum(n)
    for j in tl.static_range(V):
        # Column j of a thread's own V: the index is known when this is compiled, so nothing moves.
        own = tl.arange(0, V)[None, :] == j
        here = tl.max((passing & own).to(tl.int32), 1)
        tl.store(groups + slot, tl.arange(0, BLOCK // V) * V + j, mask=(here > 0) & (slot < SLOTS))
        slot += here
    found = tl.where(n_groups > SLOTS, SLOTS + 1, 0)
    tl.debug_barrier()
    AT_ONCE: tl.constexpr = 512 if SLOTS < 512 else SLOTS
    lanes = tl.arange(0, AT_ONCE)
    group = lanes % SLOTS
    first = tl.load(groups + group, mask=group < n_groups, other=L).to(tl.int32) + (lanes // SLOTS) * BLOCK
    for start in range(0, L, BLOCK * (AT_ONCE // SLOTS)):
        columns = start + first
        keys = row_keys(pre, columns, L)
        # What lies beyond the row has the key of −Inf; were that the bound, all groups would pass, too many for here.
        taken = keys >= bound
        place = found + tl.cumsum(taken.to(tl.int32), 0) - 1
        tl.store(entries + place, entry_of(keys, columns), mask=taken & (place < SLOTS))
        found = tl.max(place) + 1
    return found


@triton.jit
def _kth(pre, L, k, bound, highest, BLOCK: tl.constexpr, V: tl.constexpr):
    """The k-th largest key, and how many of those equal to it are among the k. First try: the bound itself."""
    low = bound.to(tl.int64)
    high = highest.to(tl.int64)
    probe = low
    above = 0
    while low < high:
        counts = tl.zeros([BLOCK // V, V], tl.int32)
        for start in range(0, L, BLOCK):
            counts += (row_keys(pre, block_columns(start, BLOCK, V), L) > probe.to(tl.int32)).to(tl.int32)
        n = tl.sum(tl.ravel(counts))
        above = tl.where(n < k, n, above)
        low = tl.where(n < k, low, probe + 1)
        high = tl.where(n < k, probe, high)
        probe = (low + high) >> 1
    return high.to(tl.int32), k - above


@triton.jit
def topk_kernel(
    pre, acts, indices, scratch, L, k, stride_n, about_L, BLOCK: tl.constexpr, KP: tl.constexpr, SLOTS: tl.constexpr
):
    V: tl.constexpr = 128 // pre.dtype.element_ty.primitive_bitwidth
    row = tl.program_id(0).to(tl.int64)
    pre += row * stride_n
    entries = scratch + row * (2 * SLOTS)
    best = _maxima(pre, L, BLOCK, V)
    bound, highest = _bound(best, L, k, KP, BLOCK)
    n = _candidates(pre, entries, entries + SLOTS, best, L, bound, BLOCK, V, SLOTS)
    if n > SLOTS:
        key, ties = _kth(pre, L, k, bound, highest, BLOCK, V)
        tl.debug_barrier()
        gather_row(pre, entries, L, key, ties, k, BLOCK, V)
        n = k
    tl.debug_barrier()
    write_largest(entries, n, acts + row * k, indices + row * k, k, SLOTS, KP)


topk_kernel = tuned(_CONFIGS, key=["about_L", "KP"])(topk_kernel)
