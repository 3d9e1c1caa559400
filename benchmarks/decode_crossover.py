"""Where a dense decode overtakes the gathered one: `python benchmarks/decode_crossover.py`.

Both forms of the reference's sparse_decode, forward and backward, taking turns in one run; the ratio of medians over
latents per active latent. DENSE_UP_TO in groupcc/ops/_dense_decode.py is read off this table.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from groupcc.ops import _dense_decode
from groupcc.ops.sparse_decode.reference import Args, sparse_decode_reference

RATIOS = (2, 4, 8, 16, 32, 64, 128)


def timed(acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, dense_up_to: int) -> float:
    acts.grad = W_dec.grad = None
    _dense_decode.DENSE_UP_TO = dense_up_to
    start = time.perf_counter()
    sparse_decode_reference(Args(acts, indices, W_dec, None)).square().mean().backward()
    return time.perf_counter() - start


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--width", type=int, nargs=2, default=(32, 80), metavar=("G", "D"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    G, D = args.width
    print(f"N = {args.n}, k = {args.k}, G·D = {G * D}, {torch.get_num_threads()} threads, medians of {args.repeats}")
    print(f"{'L / k':>6} {'dense ms':>10} {'gathered ms':>12} {'dense / gathered':>17}")
    for ratio in RATIOS:
        L = ratio * args.k
        generator = torch.Generator().manual_seed(0)
        acts = torch.rand(args.n, args.k, generator=generator).requires_grad_()
        indices = torch.rand(args.n, L, generator=generator).topk(args.k).indices
        W_dec = torch.randn(L, G, D, generator=generator).requires_grad_()
        dense, gathered = [], []
        for round_ in range(args.repeats + 1):
            times = timed(acts, indices, W_dec, 1 << 30), timed(acts, indices, W_dec, 0)
            if round_:  # the first warms up
                dense.append(times[0])
                gathered.append(times[1])
        a, b = statistics.median(dense), statistics.median(gathered)
        print(f"{ratio:6} {1e3 * a:10.2f} {1e3 * b:12.2f} {a / b:17.2f}")


if __name__ == "__main__":
    main()
