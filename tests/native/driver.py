"""Every op of the C++ backend, forward and backward, on random shapes for every instruction set, in a sanitized build.

    driver.py EXTENSION SECONDS SEED LAST

tests/native/check.py starts it. Results are compared with the reference, so that a kernel that reads the wrong element
within bounds is found too. The first finding ends it; the file LAST then says which shapes it was.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def use_extension(path: str) -> Any:
    """Makes the file at `path` be groupcc._C, whatever is installed."""
    import groupcc

    spec = importlib.util.spec_from_file_location("groupcc._C", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["groupcc._C"] = groupcc._C = module
    spec.loader.exec_module(module)
    return module


_C = use_extension(sys.argv[1])
import groupcc.ops as ops  # noqa: E402 (after the extension is in place)
from groupcc.bench.cases import agree  # noqa: E402
from groupcc.groups import Group, group  # noqa: E402
from groupcc.ops._cpp import launch  # noqa: E402
from groupcc.ops.encode_topk import cpp as encode_topk_cpp  # noqa: E402

# Every output from csrc/memory.cpp, which is how large ones are made.
launch._BLOCK_FROM = 1

Call = Callable[[], tuple[torch.Tensor, ...]]


class Draw:
    """Random sizes and tensors, edges often among them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = torch.float32

    def size(self, most: int, *edges: int) -> int:
        return self.random.choice([*edges, self.random.randint(1, most), self.random.randint(1, min(most, 9))])

    def randn(self, *shape: int) -> torch.Tensor:
        """Sometimes a view with other strides, or one that begins in the middle of its memory."""
        kind = self.random.choice(("plain", "plain", "transposed", "offset"))
        if kind == "transposed":
            return torch.randn(*shape[::-1], generator=self.generator).to(self.dtype).permute(*range(len(shape))[::-1])
        tensor = torch.randn(*shape, generator=self.generator).to(self.dtype)
        return torch.cat([tensor, tensor])[len(tensor) :] if kind == "offset" else tensor

    def pre_acts(self, N: int, L: int) -> torch.Tensor:
        """Sometimes with ties, mostly zeros, or what is not finite."""
        pre = self.randn(N, L)
        kind = self.random.choice(("plain", "ties", "zeros", "negative", "equal", "special"))
        if kind == "ties":
            pre = (pre * 2).round()
        elif kind == "zeros":
            pre = (pre - 2).relu()
        elif kind == "negative":
            pre = -pre.abs() - 1
        elif kind == "equal":
            pre = torch.ones_like(pre)
        elif kind == "special" and pre.numel():
            values = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-42]).to(pre.dtype)
            chosen = torch.randint(0, 5, pre.shape, generator=self.generator)
            pre = torch.where(self.randn(N, L) > 0.5, values[chosen], pre)
        return pre

    def latents(self, L: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Acts [N, K], some of them 0, and indices [N, K], which may repeat."""
        N, K = self.size(40, 0, 1), self.size(20, 1, L)
        return self.randn(N, K).relu(), torch.randint(0, L, (N, K), generator=self.generator)

    def maps(self, *group_orders: int) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Maps [B, S, H, W, D], points [G, P, 2] within them up to their rim, an interpolation."""
        how = self.random.choice(("bilinear", "bspline"))
        B, G, P, D = self.size(3, 1), self.size(6, 1, *group_orders), self.size(20, 1), self.size(70, 1, 33)
        H, W = self.size(9, 3), self.size(9, 3)
        H, W = max(H, 3), max(W, 3)
        margin = 0.0 if how == "bilinear" else 1.0
        room = torch.tensor([W - 1 - 2 * margin, H - 1 - 2 * margin])
        points = margin + torch.rand(G, P, 2, generator=self.generator) * room
        if self.random.random() < 0.5:
            points = points.round()
        return self.randn(B, self.random.choice((1, G)), H, W, D), points, how


def with_gradients(call: Callable[..., Any], *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The results of `call`, and the gradients of their weighted sum."""
    fresh = [leaf.detach().requires_grad_() for leaf in leaves]
    results = call(*fresh)
    results = results if isinstance(results, tuple) else (results,)
    floating = [result for result in results if result.requires_grad]
    total = sum(((result * 1.5).sum().float() for result in floating), torch.zeros(()))
    return *(result.detach() for result in results), *torch.autograd.grad(total, fresh)


def topk(draw: Draw) -> tuple[str, Call]:
    N, L = draw.size(30, 0, 1), draw.size(600, 1, 17, 4097)
    pre, k = draw.pre_acts(N, L), draw.size(L, 1, L)
    return f"{tuple(pre.shape)}, k = {k}", lambda: with_gradients(lambda p: ops.topk(p, k), pre)


def batchtopk(draw: Draw) -> tuple[str, Call]:
    N, L = draw.size(30, 0, 1), draw.size(600, 1, 17)
    pre, k = draw.pre_acts(N, L), draw.size(L, 1, L)
    return f"{tuple(pre.shape)}, k = {k}", lambda: with_gradients(lambda p: ops.batchtopk(p, k)[:2], pre)


def encode_topk(draw: Draw) -> tuple[str, Call]:
    screened = draw.random.random() < 0.5
    if screened:  # whatever the CPU, and in float32 alone
        draw.dtype = torch.float32
        N, M, L = draw.size(150, 64, 65), draw.size(200, 1, 33), max(draw.size(900, 2049), 16)
        x, W_enc, b_enc, k = draw.randn(N, M), draw.randn(L, M).contiguous().t(), draw.randn(L), draw.size(L // 16, 1)
        x = x + draw.random.choice((0.0, 5.0, 100.0)) * x[:, :1]  # rows of few candidates, of many, of too many
    else:
        N, M, L = draw.size(40, 0, 1), draw.size(130, 1, 33), draw.size(600, 1, 17, 2049)
        x, W_enc, b_enc, k = draw.randn(N, M), draw.randn(M, L), draw.randn(L), draw.size(L, 1, L)

    def call() -> tuple[torch.Tensor, ...]:
        with mock.patch.object(encode_topk_cpp, "pays", return_value=screened):
            acts, _, *_gradients = with_gradients(lambda *leaves: ops.encode_topk(*leaves, k), x, W_enc, b_enc)
        return (acts,)  # near-ties may be chosen otherwise, and their gradients with them

    return f"N = {N}, M = {M}, L = {L}, k = {k}, screened = {screened}", call


def sparse_decode(draw: Draw) -> tuple[str, Call]:
    L, G, D = draw.size(60, 1), draw.size(6, 1), draw.size(130, 1, 33)
    acts, indices = draw.latents(L)
    W_dec, b_dec = draw.randn(L, G, D), draw.randn(G, D)
    if draw.random.random() < 0.3:
        call = lambda: with_gradients(lambda a, W: ops.sparse_decode(a, indices, W), acts, W_dec)  # noqa: E731
    else:
        call = lambda: with_gradients(lambda a, W, b: ops.sparse_decode(a, indices, W, b), acts, W_dec, b_dec)  # noqa: E731
    return f"{tuple(acts.shape)} of {tuple(W_dec.shape)}", call


def decode_loss(draw: Draw) -> tuple[str, Call]:
    if draw.random.random() < 0.5:
        L, G, D = draw.size(60, 1), draw.size(6, 1), draw.size(130, 1, 33)
        acts, indices = draw.latents(L)
        target = draw.randn(len(acts), G, D)
        W_dec, b_dec = draw.randn(L, G, D), draw.randn(G, D)
        call = lambda a, W, b: ops.decode_loss(a, indices, W, b, target)[:1]  # noqa: E731
    else:
        maps, points, how = draw.maps()
        (B, _, _, _, D), (G, P, _) = maps.shape, points.shape
        L, K = draw.size(60, 1), draw.size(20, 1)
        acts = draw.randn(B * P, K).relu()
        indices = torch.randint(0, L, (B * P, K), generator=draw.generator)
        W_dec, b_dec = draw.randn(L, G, D), draw.randn(G, D)
        call = lambda a, W, b: ops.decode_loss_maps(a, indices, W, b, maps, points, how)[:1]  # noqa: E731
    return f"{tuple(acts.shape)} of {tuple(W_dec.shape)}", lambda: with_gradients(call, acts, W_dec, b_dec)


def orbit_gather(draw: Draw) -> tuple[str, Call]:
    maps, points, how = draw.maps(0)
    shapes = f"{tuple(maps.shape)}, {tuple(points.shape)}, {how}"
    return shapes, lambda: with_gradients(lambda m: ops.orbit_gather(m, points, how), maps)


def orbit_encode(draw: Draw) -> tuple[str, Call]:
    maps, points, how = draw.maps(0)
    G, D, L = len(points), maps.shape[-1], draw.size(130, 1, 33)
    W_enc, b_enc = draw.randn(draw.random.choice((min(1, G), G)), D, L), draw.randn(L)
    relu = draw.random.random() < 0.5
    shapes = f"{tuple(maps.shape)}, {tuple(points.shape)}, {tuple(W_enc.shape)}, {how}, relu = {relu}"
    return shapes, lambda: with_gradients(
        lambda m, W, b: ops.orbit_encode(m, points, W, b, how, relu), maps, W_enc, b_enc
    )


def group_correlate(draw: Draw) -> tuple[str, Call]:
    if draw.dtype not in (torch.float32, torch.float64):  # there are no others
        draw.dtype = torch.float32
    G = group(draw.random.choice(("C1", "C2", "C5", "D1", "D3", "D4", "D7")))
    N, L, D = draw.size(20, 0, 1), draw.size(70, 0, 1, 33), draw.size(130, 1, 33)
    acts, W = draw.randn(N, G.order, D), draw.randn(L, G.order, D)
    return f"{G}, {tuple(acts.shape)}, L = {L}", lambda: with_gradients(
        lambda a, w: ops.group_correlate(a, w, G), acts, W
    )


def group_correlate_max(draw: Draw) -> tuple[str, Call]:
    if draw.dtype not in (torch.float32, torch.float64):  # there are no others
        draw.dtype = torch.float32
    G = group(draw.random.choice(("C1", "C2", "C5", "D1", "D3", "D4", "D7")))
    N, L, D = draw.size(130, 0, 1), draw.size(70, 0, 1, 33), draw.size(450, 0, 1, 33)
    given = draw.randn(N, G.order, D), draw.randn(L, G.order, D), draw.randn(L)
    return f"{G}, {tuple(given[0].shape)}, L = {L}", lambda: ops.group_correlate_max(*given, G)[:1]


def group_decode_loss(draw: Draw) -> tuple[str, Call]:
    G, L, D, acts, indices, poses = posed(draw)
    W, b, target = draw.randn(L, G.order, D), draw.randn(1, D), draw.randn(len(acts), G.order, D)
    call = lambda a, W, b: ops.group_decode_loss(a, indices, poses, W, b, target, G)[:1]  # noqa: E731
    return f"{G}, {tuple(acts.shape)} of {tuple(W.shape)}", lambda: with_gradients(call, acts, W, b)


def group_encode_at(draw: Draw) -> tuple[str, Call]:
    G, L, D, acts, indices, poses = posed(draw)
    x, W, b = draw.randn(len(acts), G.order, D), draw.randn(L, G.order, D), draw.randn(L)
    known = None
    if draw.random.random() < 0.5:  # what it is, but for what was not chosen
        with ops.use_backend("reference"):
            known = ops.group_encode_at(x, W, b, indices, poses, G) * (acts != 0)
    call = lambda x, W, b: ops.group_encode_at(x, W, b, indices, poses, G, known=known)  # noqa: E731
    return f"{G}, {tuple(acts.shape)} of {tuple(W.shape)}", lambda: with_gradients(call, x, W, b)


def posed(draw: Draw) -> tuple[Group, int, int, torch.Tensor, torch.Tensor, torch.Tensor]:
    G = group(draw.random.choice(("C1", "C2", "C5", "D1", "D3", "D4", "D7")))
    L, D = draw.size(40, 1), draw.size(130, 1, 33)
    acts, indices = draw.latents(L)
    return G, L, D, acts, indices, torch.randint(0, G.order, indices.shape, generator=draw.generator)


def pose_maxima(draw: Draw) -> tuple[str, Call]:
    G = group(draw.random.choice(("C1", "C2", "C5", "D1", "D3", "D4", "D7")))
    N, L = draw.size(20, 0, 1), draw.size(40, 1)
    z, near = draw.randn(N, L, G.order), torch.rand(L, G.order, generator=draw.generator) < 0.3
    count = draw.size(L * G.order, 1, L * G.order)
    # Where nothing is left, what stands beside −inf means nothing.
    return f"{G}, {tuple(z.shape)}, count = {count}", lambda: ops.pose_maxima(z, near, G, count)[1:]


CASES = {
    case.__name__: case
    for case in (
        *(topk, batchtopk, encode_topk, sparse_decode, decode_loss),
        *(orbit_gather, orbit_encode, group_correlate, group_correlate_max),
        *(group_decode_loss, group_encode_at, pose_maxima),
    )
}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def close(name: str, dtype: torch.dtype, results: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    """Equal up to rounding, wherever both are finite; in half precision the sanitizers' findings alone count."""
    if dtype in (torch.bfloat16, torch.float16):
        return all(a.shape == b.shape for a, b in zip(results, expected, strict=True))
    return agree([a.nan_to_num(0, 0, 0) for a in results], [b.nan_to_num(0, 0, 0) for b in expected])


def main(seconds: float, seed: int, last: Path) -> int:
    having = {name for name, op in ops.registered_ops().items() if "cpp" in op.backends}
    if having - set(CASES):
        print(f"no random shapes for {', '.join(sorted(having - set(CASES)))}: add them to tests/native/driver.py")
        return 1
    running = [name for name in CASES if name in having and ops.registered_ops()[name].why_off("cpp") is None]
    started, count = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        for name in running:
            draw = Draw(seed + count)
            draw.dtype = DTYPES[count % len(DTYPES)]
            shapes, call = CASES[name](draw)
            what = f"{name}, {draw.dtype}, {shapes} (seed {seed + count})"
            torch.set_num_threads(1 + count % 2)
            with ops.use_backend("reference"):
                expected = call()
            for isa in _C.available_isas():
                _C.set_isa(isa)
                last.write_text(f"{what}, {isa}\n")  # a sanitizer ends the process without another word
                with ops.use_backend("cpp"):
                    results = call()
                if not close(name, draw.dtype, results, expected):
                    print("differs from the reference")
                    return 1
        count += 1
    print(f"{count} random shapes of each of {', '.join(running)} on {', '.join(_C.available_isas())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
