"""The k largest of x @ W + b from a bfloat16 product and the exact pre-activations of what it cannot rule out.

Where a CPU multiplies bfloat16 several times as fast as float32, a product rounded so says of nearly every latent that
it is not among the k largest, with a proof (csrc/encode_topk.cpp); only the others are computed in float32.
"""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, empty, threads
from groupcc.ops._torch_private import fast_bfloat16
from groupcc.ops.encode_topk import Args

__all__ = ["pays", "screened"]

# The rounded pre-activations of so many bytes at a time.
BLOCK_BYTES = 16 << 20
# Rows tried first. Where most of them cannot be screened, the others are not tried.
PROBE = 64
# From these sizes on the saving exceeds what rounding W costs (about 0.12 ns an element, once a call, against 0.01 ns
# saved for each row of it) and what screening costs (about 0.5 ns a pre-activation); measured on Zen 5, two threads.
LEAST_ROWS, LEAST_WIDTH, LEAST_LATENTS_PER_ACTIVE = 64, 128, 16
# Up to here the rounding errors of sums stay within what the proof allows for.
LARGEST_WIDTH = 1 << 16


def pays(args: Args) -> bool:
    """Whether to screen: float32, a latent-major W_enc, a fast bfloat16 product, and sizes that earn its cost."""
    x_NM, W_enc_ML, _, k = args
    (N, M), L = x_NM.shape, W_enc_ML.shape[1]
    return (
        x_NM.dtype == torch.float32
        and N >= LEAST_ROWS
        and LEAST_WIDTH <= M <= LARGEST_WIDTH
        and LEAST_LATENTS_PER_ACTIVE * k <= L < 1 << 31
        and W_enc_ML.t().is_contiguous()
        and fast_bfloat16()
        and bool(torch.backends.mkldnn.enabled)
    )


def screened(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """acts [N, k], indices [N, k], and the rows (int64, ascending) that are left to do, whose entries mean nothing."""
    x, W, b, k = args.x_NM.contiguous(), args.W_enc_ML.t(), args.b_enc_L.contiguous(), args.k
    N, L = len(x), len(W)
    centre = x.mean(0)
    centre = torch.where(centre.isfinite(), centre, 0)
    W_rounded, latents = _round_rows(W, None, centre)
    x_rounded, examples = _round_rows(x, centre, None)
    acts, indices = x.new_empty(N, k), empty((N, k), torch.int64)
    left = empty((N,), torch.uint8).fill_(1)
    rows = max(BLOCK_BYTES // (2 * L), PROBE)
    z = empty((min(rows, N), L), torch.bfloat16)
    start = 0
    while start < N:
        stop = min(start + (rows if start else PROBE), N)
        z_block = torch.mm(x_rounded[start:stop], W_rounded.t(), out=z[: stop - start])
        n_left = _C.encode_topk_choose(
            *(z_block, x, W, b, latents, examples, float(centre.norm())), *(acts, indices, left), start, threads()
        )
        if not start and 2 * n_left > stop:
            break
        start = stop
    return acts, indices, left.nonzero().flatten()


def _round_rows(
    rows: torch.Tensor, shift: torch.Tensor | None, against: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`rows` [R, M], less `shift`, as bfloat16; and of each row: size, rounded size, error, dot with `against`."""
    R, M = rows.shape
    rounded = empty((R, M), torch.bfloat16)
    stats = empty((4, R), torch.float32)
    _C.encode_topk_round(rows, shift, against, rounded, stats, threads())
    return rounded, stats
