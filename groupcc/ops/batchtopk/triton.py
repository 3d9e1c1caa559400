"""batchtopk on GPUs: pre_acts [N, L] → acts [N, K], indices [N, K], threshold []. Two reads of pre_acts from memory.

1. Maxima of small groups of the batch (first read). The N·k-th largest of them bounds the threshold from below, and of
   random entries hardly more than N·k reach it. A radix histogram finds it, 8 bits a round.
2. Each row's entries from the bound up (second read) go to a list. Only positive ones count: the ReLU makes the rest 0.
3. The same histogram over the list finds the threshold; each row's share of its equals comes from a prefix sum, which
   gives equals to the lower flat index. Rows are sorted by counting.

Where ties or the data's order put more on the list than fits, the histogram runs over pre_acts itself, and the list
then gets exactly what is chosen. Sums are of integers, so that no order of atomic additions shows in a result.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from groupcc.ops._triton.keys import (
    act_of_key,
    block_columns,
    count,
    gather_row,
    index_of_entry,
    key_of,
    key_of_entry,
    ranks,
    row_keys,
)
from groupcc.ops._triton.launch import Build, fused, next_power_of_2, why_not
from groupcc.ops.batchtopk import Args

__all__ = ["builds", "forward", "unsupported"]

_BLOCK = 4096  # of a row or the batch at a time, with 8 warps
_LIST_BLOCK = 1024  # of keys in a histogram
_ROW_BLOCK = 128  # of a row's entries, ranked together
_PROGRAMS = 1024  # of a histogram: enough for any GPU, few enough that their sums cost nothing
_LARGEST_GROUP = 64


def unsupported(args: Args) -> str | None:
    if args.pre_acts_NL.dtype == torch.float64:
        return "the Triton kernels take float32, bfloat16 or float16, got torch.float64"
    if args.pre_acts_NL.shape[1] >= 2**31:
        return f"the Triton kernels number fewer than 2**31 latents, got {args.pre_acts_NL.shape[1]}"
    return why_not(args)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pre = args.pre_acts_NL.contiguous()
    if len(pre) == 0:
        return pre.new_empty(0, 1), pre.new_empty(0, 1, dtype=torch.int64), pre.new_zeros(())
    return _largest(pre, args.k)


def _largest(pre: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `forward`; N > 0."""
    N, L = pre.shape
    wanted = N * k
    group = _group(L, k)
    maxima = pre.new_empty(triton.cdiv(N * L, group), dtype=torch.int32)
    maxima_kernel[(triton.cdiv(N * L, _BLOCK),)](pre, maxima, N * L, BLOCK=_BLOCK, GROUP=group, num_warps=8)
    bound = _histograms(maxima, maxima.numel(), None, wanted, pre.dtype)

    limit = 2 * wanted + _BLOCK
    entries = pre.new_empty(limit, dtype=torch.int64)
    # The list's length, then each row's start and length.
    length, starts, counts = pre.new_zeros(1 + 2 * N, dtype=torch.int64).split([1, N, N])
    gather_kernel[(N,)](
        pre, entries, length, starts, counts, bound, wanted, L, limit, RESERVE=True, BLOCK=_BLOCK, num_warps=8
    )
    exact = _histograms(entries, limit, length, wanted, pre.dtype)
    chosen, _, threshold = _shares(entries, starts, counts, exact, wanted, limit, pre.dtype)
    K, listed = torch.stack((chosen.max(), length[0])).tolist()
    if listed > limit:
        exact = _histograms(pre, N * L, None, wanted, pre.dtype)
        rows = torch.arange(N, device=pre.device) * L
        chosen, ties, threshold = _shares(pre, rows, torch.full_like(rows, L), exact, wanted, N * L, pre.dtype)
        starts, counts = chosen.cumsum(0) - chosen, chosen
        gather_kernel[(N,)](
            pre, entries, length, starts, ties, exact, wanted, L, limit, RESERVE=False, BLOCK=_BLOCK, num_warps=8
        )
        K = int(chosen.max())
    K = max(K, 1)
    acts, indices = pre.new_empty(N, K), pre.new_empty(N, K, dtype=torch.int64)
    rows_kernel[(N,)](entries, starts, counts, chosen, acts, indices, K, BLOCK=_ROW_BLOCK)
    return acts, indices, threshold


def builds() -> list[Build]:
    """Each kernel in each dtype; histograms of every round and source."""
    rows = triton.Config({"BLOCK": _BLOCK}, num_warps=8)
    lists = triton.Config({"BLOCK": _LIST_BLOCK}, num_warps=4)
    found = [Build.of(rows_kernel, _types("bf16"), triton.Config({"BLOCK": _ROW_BLOCK}, num_warps=4))]
    for dtype, rounds in (("bf16", 2), ("fp16", 2), ("fp32", 4)):
        types = _types(dtype)
        found += [
            *(Build.of(maxima_kernel, types, rows, {"GROUP": group}) for group in (1, _LARGEST_GROUP)),
            *(Build.of(gather_kernel, types, rows, {"RESERVE": reserve}, ("L",)) for reserve in (True, False)),
        ]
        for source, listed in (("i32", False), ("i64", True), (dtype, False)):
            types["source"] = f"*{source}"
            rest = {"LISTED": listed, "DONE": rounds - 1, "ROUNDS": rounds}
            found.append(Build.of(histogram_kernel, types, lists, rest))
            if source != "i32":
                found.append(Build.of(shares_kernel, types, lists, {"ROUNDS": rounds}))
    return found


def _types(dtype: str) -> dict[str, str]:
    counts = ("length", "histograms", "starts", "counts", "row_counts", "above", "equal", "chosen")
    return {
        **dict.fromkeys(("pre", "acts", "threshold"), f"*{dtype}"),
        **dict.fromkeys(("entries", "indices", *counts), "*i64"),
        "maxima": "*i32",
        **dict.fromkeys(("n", "wanted", "limit"), "i64"),
        **dict.fromkeys(("L", "K"), "i32"),
    }


def _group(L: int, k: int) -> int:
    """Entries whose maximum stands for them: at least four groups, a power of two long, for each chosen entry."""
    return min(next_power_of_2(L // (4 * k) + 1) // 2, _LARGEST_GROUP) if 4 * k <= L else 1


def _histograms(
    source: torch.Tensor, n: int, length: torch.Tensor | None, wanted: int, dtype: torch.dtype
) -> torch.Tensor:
    """Digit histograms [rounds, 256] from which kernels read the `wanted`-th largest positive key of source[:n]."""
    rounds = dtype.itemsize
    counts = source.new_zeros(rounds, 256, dtype=torch.int64)
    programs = min(triton.cdiv(n, _LIST_BLOCK), _PROGRAMS)
    for done in range(rounds):
        histogram_kernel[(programs,)](
            source,
            n,
            counts if length is None else length,
            counts,
            wanted,
            LISTED=length is not None,
            DONE=done,
            ROUNDS=rounds,
            BLOCK=_LIST_BLOCK,
        )
    return counts


def _shares(
    source: torch.Tensor,
    starts: torch.Tensor,
    counts: torch.Tensor,
    exact: torch.Tensor,
    wanted: int,
    limit: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How many entries of each row are chosen, how many of those equal the threshold, and the threshold."""
    N = starts.numel()
    above, equal = starts.new_empty(2, N)
    threshold = starts.new_empty((), dtype=dtype)
    shares_kernel[(N,)](
        source, starts, counts, exact, wanted, limit, above, equal, threshold, ROUNDS=exact.shape[0], BLOCK=_LIST_BLOCK
    )
    left = wanted - above.sum() - (equal.cumsum(0) - equal)
    ties = torch.minimum(left.clamp(min=0), equal)
    return above + ties, ties, threshold


@triton.jit
def _positive_key(source, at, mask):
    """Keys of floats, keys, or entries, 0 where they are not positive."""
    if source.dtype.element_ty == tl.int64:
        key = key_of_entry(tl.load(source + at, mask=mask, other=0))
    elif source.dtype.element_ty == tl.int32:
        key = tl.load(source + at, mask=mask, other=0)
    else:
        key = key_of(tl.load(source + at, mask=mask, other=0.0))
    return tl.maximum(key, 0)


@triton.jit
def _digits(histograms, wanted, DONE: tl.constexpr):
    """The first DONE base-256 digits of the `wanted`-th largest key, 0 where there are fewer."""
    key = 0
    bins = tl.arange(0, 256)
    for i in tl.static_range(DONE):
        counts = tl.load(histograms + i * 256 + bins)
        from_here = tl.sum(counts) - tl.cumsum(counts, 0) + counts
        digit = tl.max(tl.where(from_here >= wanted, bins, 0))
        wanted -= tl.sum(tl.where(bins > digit, counts, 0))
        key = key * 256 + digit
    return key


@fused
@triton.jit
def maxima_kernel(pre, maxima, n, BLOCK: tl.constexpr, GROUP: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BLOCK
    key = _positive_key(pre, first + tl.arange(0, BLOCK), first + tl.arange(0, BLOCK) < n)
    groups = first // GROUP + tl.arange(0, BLOCK // GROUP)
    best = tl.max(tl.reshape(key, [BLOCK // GROUP, GROUP]), 1)
    tl.store(maxima + groups, best, mask=groups * GROUP < n)


@fused
@triton.jit
def histogram_kernel(
    source,
    n,
    length,
    histograms,
    wanted,
    LISTED: tl.constexpr,
    DONE: tl.constexpr,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Counts digit DONE of the positive keys whose earlier digits are those of the key sought."""
    key_so_far = _digits(histograms, wanted, DONE)
    if LISTED:
        n = tl.minimum(n, tl.load(length))
    SHIFT: tl.constexpr = 8 * (ROUNDS - 1 - DONE)
    counts = tl.zeros([256], tl.int32)
    first = tl.program_id(0).to(tl.int64) * BLOCK
    while first < n:
        at = first + tl.arange(0, BLOCK)
        key = _positive_key(source, at, at < n)
        digits = key >> SHIFT
        counts += tl.histogram(digits & 255, 256, mask=(key > 0) & ((digits >> 8) == key_so_far))
        first += tl.num_programs(0).to(tl.int64) * BLOCK
    tl.atomic_add(histograms + DONE * 256 + tl.arange(0, 256), counts.to(tl.int64), mask=counts > 0, sem="relaxed")


@fused
@triton.jit
def gather_kernel(
    pre,
    entries,
    length,
    starts,
    row_counts,
    histograms,
    wanted,
    L,
    limit,
    RESERVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row's entries on the list: with RESERVE from the bound up, wherever there is room; else above the threshold,
    and `row_counts` equal to it, at `starts`."""
    ROUNDS: tl.constexpr = pre.dtype.element_ty.primitive_bitwidth // 8
    V: tl.constexpr = 16 // ROUNDS
    row = tl.program_id(0).to(tl.int64)
    pre += row * L
    key = tl.maximum(_digits(histograms, wanted, ROUNDS), 1)
    if RESERVE:
        counts = tl.zeros([BLOCK // V], tl.int32)
        for first in range(0, L, BLOCK):
            columns = block_columns(first, BLOCK, V)
            counts += count(row_keys(pre, columns, L) >= key, 1)
        n = tl.sum(counts).to(tl.int64)
        start = tl.atomic_add(length, n, sem="relaxed")
        tl.store(starts + row, start)
        tl.store(row_counts + row, n)
        ties = L
    else:
        start = tl.load(starts + row)
        ties = tl.load(row_counts + row).to(tl.int32)
    gather_row(pre, entries + start, L, key, ties, limit - start, BLOCK, V)


@fused
@triton.jit
def shares_kernel(
    source,
    starts,
    counts,
    histograms,
    wanted,
    limit,
    above,
    equal,
    threshold,
    ROUNDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """How many of source[starts[row]:][:counts[row]] lie above the threshold, and how many equal it."""
    key = _digits(histograms, wanted, ROUNDS)
    row = tl.program_id(0).to(tl.int64)
    start = tl.load(starts + row)
    end = tl.minimum(start + tl.load(counts + row), limit)
    # Counts of one thread stay far below 2^31, a row's sum may not.
    n_above = tl.zeros([BLOCK], tl.int32)
    n_equal = tl.zeros([BLOCK], tl.int32)
    while start < end:
        at = start + tl.arange(0, BLOCK)
        keys = _positive_key(source, at, at < end)
        n_above += (keys > key).to(tl.int32)
        n_equal += ((keys == key) & (key > 0)).to(tl.int32)
        start += BLOCK
    tl.store(above + row, tl.sum(n_above.to(tl.int64)))
    tl.store(equal + row, tl.sum(n_equal.to(tl.int64)))
    if row == 0:
        tl.store(threshold, act_of_key(key, threshold.dtype.element_ty))


@fused
@triton.jit
def rows_kernel(entries, starts, counts, chosen, acts, indices, K, BLOCK: tl.constexpr):
    """Writes the largest `chosen` of each row's entries in order, then act 0, index 0."""
    row = tl.program_id(0).to(tl.int64)
    entries += tl.load(starts + row)
    n = tl.load(counts + row).to(tl.int32)
    kept = tl.load(chosen + row).to(tl.int32)
    acts += row * K
    indices += row * K
    for first in range(0, n, BLOCK):
        slots = first + tl.arange(0, BLOCK)
        entry = tl.load(entries + slots, mask=slots < n, other=-(2**63))
        rank = ranks(entries, n, entry)
        written = (slots < n) & (rank < kept)
        tl.store(acts + rank, act_of_key(key_of_entry(entry), acts.dtype.element_ty), mask=written)
        tl.store(indices + rank, index_of_entry(entry), mask=written)
    for first in range(kept, K, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        tl.store(acts + columns, tl.zeros([BLOCK], acts.dtype.element_ty), mask=columns < K)
        tl.store(indices + columns, tl.zeros([BLOCK], tl.int64), mask=columns < K)
