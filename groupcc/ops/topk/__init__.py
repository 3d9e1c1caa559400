"""topk: the k largest pre-activations of each row."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from groupcc.ops._checks import check_selection
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops.topk.reference import Args, topk_reference

__all__ = ["OP", "Args", "Backward", "topk"]


class Backward(NamedTuple):
    """What the gradient to pre-activations is made from; batchtopk's too."""

    grad_acts_NK: torch.Tensor
    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    n_latents: int


class _Topk(Op[Args, tuple[torch.Tensor, torch.Tensor]]):
    name = "topk"
    reference = staticmethod(topk_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.topk import cpp

            return cpp
        from groupcc.ops.topk import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor]:
        shape = args.pre_acts_NL.shape[0], args.k
        return args.pre_acts_NL.new_empty(shape), args.pre_acts_NL.new_empty(shape, dtype=torch.int64)

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor]) -> Backward:
        return Backward(LATER, *outputs, args.pre_acts_NL.shape[1])

    def d_outputs(self, args: Backward) -> torch.Tensor:
        return args.acts_NK.new_empty(args.acts_NK.shape[0], args.n_latents)

    def gradients(self, record: Backward, saved: Saved, grad_acts: torch.Tensor, *_: Any) -> dict[str, torch.Tensor]:
        return {"pre_acts_NL": self.backward(record._replace(grad_acts_NK=grad_acts), saved.backend)}


OP = _Topk()


def topk(pre_acts: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row, then ReLU: pre_acts [N, L] → acts [N, k], indices int64 [N, k].

    - acts has the dtype of `pre_acts`: float32, float64, bfloat16 or float16.
    - Rows are sorted by falling pre-activation. Ties go to the lower index. NaN is larger than infinity, −0 equals +0,
      and the ReLU leaves NaN as it is. NaN is no error here: `GroupCrosscoder` checks its input.
    - Gradient: that of acts, scattered to the chosen entries whose act is positive. Other chosen entries pass none.
    - ArgumentError if k is not 1 to L. "triton" takes k up to 512, and no float64.
    - Deterministic, and the same to the bit on every backend.

    Gao et al. 2024 (arXiv:2406.04093), section 2.3.
    """
    check_selection(pre_acts, k)
    return OP(Args(pre_acts, k))
