"""What the launchers of Triton kernels share: where they run, bounded autotuning, builds for the compile gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from triton import knobs

INTERPRETED = bool(knobs.runtime.interpret)
"""Whether TRITON_INTERPRET=1 was set when this was imported: kernels then run on CPU tensors, slowly, for tests."""
_INTERPRETED = tl.constexpr(INTERPRETED)

TARGETS = ("sm_80", "sm_90", "gfx942")
"""The GPUs that every kernel must compile for: A100, H100 and MI300."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Build:
    """One kernel in one shipped configuration, for the compile gate (tests/helpers/compile_gate.py): it needs no GPU.

    `kernel`: the function decorated with `triton.jit`, tuned or not. `signature`: each argument's type, as in
    `{"x": "*bf16", "n": "i32", "BLOCK": "constexpr"}`; `constexprs`: their values. Pointers and the integers named in
    `divisible` are taken as multiples of 16, as launches at usual sizes have them. `tensor_cores`: whether the binary
    must have tensor-core instructions. `targets`: the GPUs that this configuration is for, by default all of TARGETS;
    each kernel needs at least one build for each of them.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    num_warps: int = 4
    num_stages: int = 3
    divisible: tuple[str, ...] = ()
    tensor_cores: bool = False
    targets: tuple[str, ...] = TARGETS

    @classmethod
    def of(
        cls,
        kernel: Any,
        types: dict[str, str],
        config: triton.Config,
        constants: dict[str, Any] | None = None,
        divisible: tuple[str, ...] = (),
    ) -> Build:
        """The build of a tuned kernel in one configuration; `constants`: its other constexprs, and None for arguments.

        `types` may have names that the kernel lacks or that are constants here.
        """
        constexprs = config.kwargs | (constants or {})
        build = cls("", kernel, {}, constexprs, config.num_warps, config.num_stages, divisible)
        names = build.function.arg_names
        signature = {name: "constexpr" if name in constexprs else types[name] for name in names}
        tile = ", ".join(f"{name}={value}" for name, value in constexprs.items())
        dtypes = " ".join(dict.fromkeys(kind[1:] for kind in signature.values() if kind.startswith(("*bf", "*fp"))))
        name = f"{build.function.__name__.strip('_')} {dtypes} ({tile}, {config.num_warps} warps)"
        return replace(build, name=name, signature=signature)

    @property
    def function(self) -> Any:
        """The kernel as `triton.compile` takes it: what lies under the decorators of `tuned`."""
        kernel = self.kernel
        while not isinstance(kernel, triton.JITFunction):
            kernel = kernel.fn
        return kernel


def why_not(args: tuple[object, ...]) -> str | None:
    """Why the tensors among `args` don't run in Triton, or None.

    All must lie on one GPU (or any device under the interpreter), and floating ones share a dtype.
    """
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    for tensor in tensors:
        if not (INTERPRETED or tensor.device.type == "cuda"):
            return f"the Triton kernels take CUDA tensors, got one on {tensor.device}"
        if tensor.device != tensors[0].device:
            return f"tensors lie on {tensors[0].device} and {tensor.device}"
    for tensor in floating:
        if tensor.dtype not in _DTYPES and not (INTERPRETED and tensor.dtype == torch.float64):
            return f"the Triton kernels take float32, bfloat16 or float16, got {tensor.dtype}"
        if tensor.dtype != floating[0].dtype:
            return f"floating tensors must share a dtype, got {floating[0].dtype} and {tensor.dtype}"
    return None


fused = triton.heuristics({"enable_fp_fusion": lambda _: True})
"""Decorates a kernel whose a·b + c is one instruction, rounded once: from Triton 3.10 on only where asked for."""


def tuned(configs: Sequence[triton.Config], key: Sequence[str]) -> Callable[[Any], Any]:
    """Decorates a kernel with `fused` and a search over a few configurations.

    The winner is cached on disk for each `key` and the tensors' dtypes. The arguments named in `key` should take few
    values: each new one is a new search. So where a number changes from step to step, as that of dead latents does, the
    key is its next power of two. Under the interpreter, where time means nothing, the first configuration runs.
    """
    if INTERPRETED:
        return triton.heuristics({name: lambda _, value=value: value for name, value in configs[0].kwargs.items()})
    search = triton.autotune(configs=list(configs), key=list(key), cache_results=True)
    return lambda kernel: search(fused(kernel))


@triton.jit
def dot(a, b, acc):
    """acc + a @ b on tensor cores for bf16 and fp16, with fp32's own products for fp32."""
    if _INTERPRETED:  # which keeps bf16 as bit patterns, and would multiply those
        a, b = a.to(acc.dtype), b.to(acc.dtype)
    return tl.dot(a, b, acc, input_precision="ieee", out_dtype=acc.dtype)


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n (and 1)."""
    return 1 << max(n - 1, 0).bit_length()
