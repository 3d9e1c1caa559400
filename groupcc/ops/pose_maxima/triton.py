"""pose_maxima on GPUs: z [N, L, G], near [L, G] → poses taken and their z, [N, count]. One program an example.

1. The largest entry of each base latent, value and pose in one integer, is written to a list [L].
2. `count` times: the largest of the list is taken, what it excludes is struck out of its base latent, and that latent's
   place in the list gets the largest entry that is left. So z is read once, and a step reads the list and one row.

Example, C4, z[0] = [1, 9, 8, 7], z[1] = [2, 2, 0, −1], where latent 0's poses exclude the next one too: the list is
(9 in pose 1, 2 in pose 0). Latent 0 gives pose 1, which strikes out pose 2 as well; its place then holds 7 in pose 3.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl

from groupcc.groups import Group
from groupcc.ops._triton.keys import entry_of, index_of_entry, key_of
from groupcc.ops._triton.launch import Build, fused, next_power_of_2, why_not
from groupcc.ops.pose_maxima import Args

__all__ = ["builds", "forward", "unsupported"]

_TILE = 2048  # entries of z whose largest are found together
_LIST = 1024  # entries of the list that are compared together


def unsupported(args: Args) -> str | None:
    _, L, G = args.z_NLG.shape
    if args.z_NLG.dtype == torch.float64:
        return "the Triton kernels take float32, bfloat16 or float16, got torch.float64"
    if L * G >= 2**31 or G > _TILE:
        return f"the Triton kernels number fewer than 2**31 poses of up to {_TILE} elements, got {L} · {G}"
    return why_not(args)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    z, near, group, count = args
    N, L, G = z.shape
    left = z.clone(memory_format=torch.contiguous_format)  # struck out as poses are taken
    entries = z.new_empty(N, L, dtype=torch.int64)
    taken, values = z.new_empty(N, count, dtype=torch.int64), z.new_empty(N, count)
    if N:
        BLOCK_G = next_power_of_2(G)
        pose_maxima_kernel[(N,)](
            *(left, entries, near.contiguous().view(torch.uint8), _between(group, z.device), taken, values),
            *(L, G, count),
            BLOCK_L=_TILE // BLOCK_G,
            BLOCK_G=BLOCK_G,
            BLOCK=_LIST,
        )
    return taken, values


@lru_cache(maxsize=32)
def _between(group: Group, device: torch.device) -> torch.Tensor:
    """int32 [G, G]: h⁻¹h' at (h, h')."""
    with torch.inference_mode(False):  # kept
        return torch.from_numpy(group.cayley[group.inverse]).to(device, torch.int32)


def builds() -> list[Build]:
    """In each dtype, for groups of 8, 64 and 512 elements."""
    found = []
    for dtype in ("bf16", "fp16", "fp32"):
        types = {
            **dict.fromkeys(("left", "values"), f"*{dtype}"),
            **dict.fromkeys(("entries", "taken"), "*i64"),
            **{"near": "*u8", "between": "*i32"},
            **dict.fromkeys(("L", "G", "count"), "i32"),
        }
        for G in (8, 64, 512):
            sizes = {"BLOCK_L": _TILE // G, "BLOCK_G": G, "BLOCK": _LIST}
            found.append(Build.of(pose_maxima_kernel, types, triton.Config(sizes, num_warps=4)))
    return found


# left [N, L, G] and entries int64 [N, L], both overwritten; near [L, G]; between [G, G] → taken, values [N, count].
@fused
@triton.jit
def pose_maxima_kernel(
    left,
    entries,
    near,
    between,
    taken,
    values,
    L,
    G,
    count,
    BLOCK_L: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    left += n * L * G
    entries += n * L
    h = tl.arange(0, BLOCK_G)
    struck_out = tl.full((BLOCK_G,), float("-inf"), tl.float32).to(left.dtype.element_ty)
    for first in range(0, L, BLOCK_L):
        latent = first + tl.arange(0, BLOCK_L)
        pose = latent[:, None] * G + h[None, :]
        inside = (latent < L)[:, None] & (h < G)[None, :]
        key = key_of(tl.load(left + pose, mask=inside, other=float("-inf")))
        entry = tl.where(inside, entry_of(key, pose), -(2**63))
        tl.store(entries + latent, tl.max(entry, 1), mask=latent < L)
    for i in range(count):
        tl.debug_barrier()
        largest = tl.full((BLOCK,), -(2**63), tl.int64)
        for first in range(0, L, BLOCK):
            latents = first + tl.arange(0, BLOCK)
            largest = tl.maximum(largest, tl.load(entries + latents, mask=latents < L, other=-(2**63)))
        best = index_of_entry(tl.max(largest, 0)).to(tl.int32)
        latent = best // G
        row = left + (latent * G + h)
        value = tl.load(row, mask=h < G, other=float("-inf"))
        tl.store(taken + n * count + i, best)
        tl.store(values + n * count + i, tl.load(left + best))
        # Pose h excludes h' where h⁻¹h' is near.
        between_them = tl.load(between + (best - latent * G) * G + h, mask=h < G, other=0)
        excluded = tl.load(near + latent * G + between_them, mask=h < G, other=0) != 0
        value = tl.where(excluded, struck_out, value)
        entry = tl.where(h < G, entry_of(key_of(value), latent * G + h), -(2**63))
        tl.debug_barrier()
        tl.store(row, value, mask=h < G)
        tl.store(entries + latent, tl.max(entry, 0))
