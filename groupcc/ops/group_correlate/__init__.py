"""group_correlate: how well each translate of each base latent matches an orbit."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops._checks import check_correlate
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops._group_fourier import coefficient_counts, saves_too_little
from groupcc.ops.group_correlate.fourier import group_correlate_fourier
from groupcc.ops.group_correlate.reference import Args, group_correlate_reference

__all__ = ["OP", "Args", "Backward", "group_correlate"]


class Backward(NamedTuple):
    """What the gradients are made from, of this op and of those that take its maximum or correlate in maps.

    `grad` is that of z [N, L, G], or if there are poses that of z's values in these [N, L]. `acts` and `W` are their
    coefficients, flat.
    """

    grad: torch.Tensor
    poses_NL: torch.Tensor | None
    acts: torch.Tensor
    W: torch.Tensor
    D: int
    group: Group
    need_acts: bool


class _GroupCorrelate(Op[Args, torch.Tensor]):
    name = "group_correlate"
    results = 0
    reference = staticmethod(group_correlate_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.group_correlate import cpp

            return cpp
        from groupcc.ops.group_correlate import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """z [N, L, G], laid out as [N, G, L], and the coefficients of acts and of W, for the gradients."""
        acts, (N, G, D), L = args.acts_NGD, args.acts_NGD.shape, args.W_LGD.shape[0]
        of_acts, of_W = coefficient_counts(args.group)
        return acts.new_empty(N, G, L).transpose(1, 2), acts.new_empty(N * of_acts * D), acts.new_empty(L * of_W * D)

    def in_pytorch(self, args: Args) -> torch.Tensor:
        """By the Fourier transform on the group, unless that would not pay."""
        return group_correlate_reference(args) if saves_too_little(args.group) else group_correlate_fourier(args)

    def reference_pays(self, args: Args) -> str | None:
        return saves_too_little(args.group)

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Backward:
        return Backward(LATER, None, *outputs[1:], args.acts_NGD.shape[2], args.group, LATER)

    def d_outputs(self, args: Backward) -> tuple[torch.Tensor, torch.Tensor]:
        """d_acts [N, G, D], of no examples unless needed, and d_W."""
        (N, L), G = args.grad.shape[:2], args.group.order
        return args.grad.new_empty(N if args.need_acts else 0, G, args.D), args.grad.new_empty(L, G, args.D)

    def gradients(self, record: Backward, saved: Saved, grad: torch.Tensor, *_: None) -> dict[str, torch.Tensor]:
        need_acts = "acts_NGD" in saved.needs
        d_acts, d_W = self.backward(record._replace(grad=grad, need_acts=need_acts), saved.backend)
        return {"acts_NGD": d_acts, "W_LGD": d_W}


OP = _GroupCorrelate()


def group_correlate(acts: torch.Tensor, W: torch.Tensor, group: Group) -> torch.Tensor:
    """z[n, l, h] = Σ_g ⟨W[l, gh], acts[n, g]⟩: [N, G, D], [L, G, D] → [N, L, G].

    The inner product of each orbit with every translate R_h W_l, (R_h w)_g = w_{gh}: a correlation on the group.
    Backend "reference" takes the sum as it stands, |G|²·N·L·D multiplications. The others take the Fourier transform
    on the group, Σ_ρ d³·N·L·D and two small transforms, 33 times fewer for D32: "cpp" and "triton" with transforms of
    their own, `auto` where neither runs in PyTorch's products, and the direct sum for groups too small to gain. One
    floating dtype for both; the ways differ by roundings, about 1e-6 of the largest z in fp32. Gradients to `acts`
    and `W`; compiled backends differentiate once. Deterministic on the CPU. Strides of the result are not fixed.

    ArgumentError for shapes and dtypes.
    """
    check_correlate(acts, W, group)
    return OP(Args(acts, W, group))
