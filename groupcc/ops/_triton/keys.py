"""The order of pre-activations as integers, for Triton kernels: keys of floats, entries of (key, index), their sort.

A key is int32, an entry int64: the key above, the inverted column below, so that equals stand by rising column.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-(2**31))
"""Below every key: what pads a block."""


@triton.jit
def key_of(x):
    """int32 keys in the order of x: NaN highest, then +Inf; −0 as +0; −Inf lowest.

    Sign and magnitude become a two's complement number, without a mask: (m ^ s) − s is m for s = 0 and −m for s = −1.
    Integers, because float comparisons on GPUs may flush denormals. For 16-bit floats the keys fit in 16 bits.
    """
    wide: tl.constexpr = x.dtype == tl.float32
    highest: tl.constexpr = 0x7FFFFFFF if wide else 0x7FFF
    infinity: tl.constexpr = 0x7F800000 if wide else 0x7C00 if x.dtype == tl.float16 else 0x7F80
    bits = x.to(tl.int32 if wide else tl.int16, bitcast=True).to(tl.int32)
    magnitude = bits & highest
    sign = bits >> 31
    key = (magnitude ^ sign) - sign
    return tl.where(magnitude > infinity, highest, key)


@triton.jit
def act_of_key(key, dtype: tl.constexpr):
    """ReLU of the float that has this key, exactly: a key that is not negative is the float's bits."""
    bits = tl.maximum(key, 0)
    if dtype == tl.float32:
        return bits.to(tl.float32, bitcast=True)
    else:
        return bits.to(tl.int16).to(dtype, bitcast=True)


@triton.jit
def value_of_key(key, dtype: tl.constexpr):
    """The float that has this key, exactly, but for +0, and one NaN for all."""
    if dtype == tl.float32:
        return tl.where(key < 0, -key | LOWEST, key).to(tl.float32, bitcast=True)
    else:
        return tl.where(key < 0, -key | 0x8000, key).to(tl.int16).to(dtype, bitcast=True)


@triton.jit
def entry_of(key, index):
    """int64 whose order is that of rising key, then falling index; index below 2^31."""
    return (key.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)


@triton.jit
def key_of_entry(entry):
    return (entry >> 32).to(tl.int32)


@triton.jit
def index_of_entry(entry):
    return 0x7FFFFFFF - (entry & 0x7FFFFFFF)


@triton.jit
def block_columns(start, BLOCK: tl.constexpr, V: tl.constexpr):
    """Columns [BLOCK / V, V] from `start`: V neighbours are one thread's load of 16 bytes, and work along V its own."""
    return start + tl.arange(0, BLOCK // V)[:, None] * V + tl.arange(0, V)[None, :]


@triton.jit
def count(mask, axis: tl.constexpr):
    """How many are true, fewer than 2^24. Summed as floats: LLVM makes a sum of bits a popcount, through the stack."""
    return tl.sum(tl.where(mask, 1.0, 0.0), axis).to(tl.int32)


@triton.jit
def row_keys(pre, columns, L):
    """Keys of a row's entries; beyond its end that of −Inf."""
    return key_of(tl.load(pre + columns, mask=columns < L, other=float("-inf")))


@triton.jit
def gather_row(pre, entries, L, key, ties, limit, BLOCK: tl.constexpr, V: tl.constexpr):
    """Writes the row's entries above `key` and the first `ties` equal to it, in rising column, at most `limit`."""
    above = 0
    equal = 0
    for start in range(0, L, BLOCK):
        columns = block_columns(start, BLOCK, V)
        keys = tl.where(columns < L, row_keys(pre, columns, L), LOWEST)
        # Two counts in one scan: a block has fewer than 2^15 entries.
        count = tl.sum((keys > key).to(tl.int32) + ((keys == key).to(tl.int32) << 16), 1)
        before = tl.cumsum(count, 0) - count
        above_before = above + (before & 0xFFFF)
        equal_before = tl.minimum(equal + (before >> 16), ties)
        for j in tl.static_range(V):
            # Column j of a thread's own V: the index is known when this is compiled, so nothing moves.
            one = tl.max(tl.where(tl.arange(0, V)[None, :] == j, keys, LOWEST), 1)
            is_equal = (one == key) & (equal_before < ties)
            slot = above_before + equal_before
            column = start + tl.arange(0, BLOCK // V) * V + j
            tl.store(entries + slot, entry_of(one, column), mask=((one > key) | is_equal) & (slot < limit))
            above_before += (one > key).to(tl.int32)
            equal_before += is_equal.to(tl.int32)
        total = tl.sum(count)
        above += total & 0xFFFF
        equal = tl.minimum(equal + (total >> 16), ties)


@triton.jit
def ranks(entries, n, entry):
    """For each of `entry`, how many of `entries[:n]` are larger."""
    rank = tl.zeros(entry.shape, tl.int32)
    for start in range(0, n, 32):
        others = start + tl.arange(0, 32)
        other = tl.load(entries + others, mask=others < n, other=-(2**63))
        rank += count(other[None, :] > entry[:, None], 1)
    return rank


@triton.jit
def write_largest(entries, n, acts, indices, k, SLOTS: tl.constexpr, KP: tl.constexpr):
    """Sorts `entries[:n]`, all different, n ≤ SLOTS, and writes the first k ≤ KP of them as acts and indices."""
    slots = tl.arange(0, SLOTS)
    # The lowest int64, which pads, is no float's entry.
    entry = tl.load(entries + slots, mask=slots < n, other=-(2**63))
    if SLOTS <= 256:
        # Few enough that counting the larger ones costs no more than a bitonic sort, and needs fewer barriers.
        rank = ranks(entries, n, entry)
        written = (rank < k) & (slots < n)
    else:
        entry = tl.topk(entry, KP)
        rank = tl.arange(0, KP)
        written = rank < k
    tl.store(acts + rank, act_of_key(key_of_entry(entry), acts.dtype.element_ty), mask=written)
    tl.store(indices + rank, index_of_entry(entry), mask=written)
