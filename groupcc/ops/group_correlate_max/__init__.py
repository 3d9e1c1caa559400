"""group_correlate_max: the strongest pose of each base latent in an orbit, without the other poses in memory."""

from __future__ import annotations

from typing import ClassVar

import torch

from groupcc.groups import Group
from groupcc.ops._checks import check_bias, check_correlate
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops._dispatch import needs_gradient
from groupcc.ops._group_fourier import coefficient_counts, saves_too_little
from groupcc.ops.group_correlate import OP as CORRELATE
from groupcc.ops.group_correlate import Backward
from groupcc.ops.group_correlate_max.reference import Args, group_correlate_max_reference

__all__ = ["OP", "Args", "group_correlate_max"]


class _GroupCorrelateMax(Op[Args, tuple[torch.Tensor, torch.Tensor]]):
    name = "group_correlate_max"
    composed: ClassVar = {"cpp": ("group_correlate",)}
    results = slice(2)
    reference = staticmethod(group_correlate_max_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.group_correlate_max import cpp

            return cpp
        from groupcc.ops.group_correlate_max import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values and poses [N, L], and the coefficients of acts and of W, which have no elements unless kept."""
        acts, (N, _, D), L = args.acts_NGD, args.acts_NGD.shape, args.W_LGD.shape[0]
        of_acts, of_W = coefficient_counts(args.group) if args.keep else (0, 0)
        poses = acts.new_empty(N, L, dtype=torch.int64)
        return acts.new_empty(N, L), poses, acts.new_empty(N * of_acts * D), acts.new_empty(L * of_W * D)

    def reference_pays(self, args: Args) -> str | None:
        return saves_too_little(args.group)

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]) -> Backward:
        return Backward(LATER, *outputs[1:], args.acts_NGD.shape[2], args.group, LATER)

    def gradients(self, record: Backward, saved: Saved, grad: torch.Tensor, *_: None) -> dict[str, torch.Tensor]:
        d_b = {"b_L": grad.sum(0)} if "b_L" in saved.needs else {}
        if saved.needs == {"b_L"}:
            return d_b
        return CORRELATE.gradients(record, saved, grad) | d_b


OP = _GroupCorrelateMax()


def group_correlate_max(
    acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor]:
    """max_h and argmax_h of z[n, l, h] + b[l], z = group_correlate(acts, W, group): values, int64 poses, both [N, L].

    - `acts` [N, G, D], `W` [L, G, D], `b` [L]: one floating dtype, which is that of the values.
    - Of equal values the lower element counts. NaN is the largest.
    - "triton" keeps z in registers, adds in fp32 and rounds once. "cpp" keeps z in the cache unless a gradient is asked
      for. Otherwise z [N, L, G] is formed and its maximum taken. So poses whose values differ by less than the rounding
      of z may change places between backends.
    - Gradients: that of a value goes to its pose, in `acts`, `W` and `b`. The kernels differentiate once.
    - Deterministic on the CPU.

    ArgumentError for shapes and dtypes.
    """
    check_correlate(acts, W, group)
    check_bias("b", b, acts, len(W), "One bias for each base latent, in the dtype of acts.")
    return OP(Args(acts, W, b, group, needs_gradient((acts, W, b))))
