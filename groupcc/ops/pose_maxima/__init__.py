"""pose_maxima: pre-activations of base latents in every pose → the poses that non-maximum suppression takes."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error, is_whole
from groupcc.groups import Group
from groupcc.ops._checks import wrong
from groupcc.ops._declare import Kernels, Op
from groupcc.ops.pose_maxima.reference import Args, pose_maxima_reference

__all__ = ["Args", "pose_maxima"]


class _PoseMaxima(Op[Args, tuple[torch.Tensor, torch.Tensor]]):
    name = "pose_maxima"
    reference = staticmethod(pose_maxima_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.pose_maxima import cpp

            return cpp
        from groupcc.ops.pose_maxima import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor]:
        shape = args.z_NLG.shape[0], args.n_poses
        return args.z_NLG.new_empty(shape, dtype=torch.int64), args.z_NLG.new_empty(shape)


OP = _PoseMaxima()


def pose_maxima(z: torch.Tensor, near: torch.Tensor, group: Group, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes each example's strongest pose, strikes out its neighbours, and goes on, `count` times.

    - `z` floating [N, L, G], of any strides; `near` bool [L, G]: whether poses h and hu of base latent l exclude one
      another.
    - Returns the poses taken, l·G + h int64 [N, count], and their z [N, count], falling; −inf where an example had
      none left, and what stands beside it means nothing then.

    Of equals the lower l and then the lower h come first; NaN is larger than everything. Without gradients: choose
    from z by the poses. Greedy non-maximum suppression as in object detection; deterministic. ArgumentError for shapes
    and dtypes.
    """
    if z.dim() != 3 or z.shape[2] != group.order or not z.is_floating_point():
        raise wrong(
            "z",
            z,
            f"a floating-point tensor [N, L, G] with G = {group.order}",
            "Pass what group_correlate returns for this group.",
        )
    if near.dtype != torch.bool or near.shape != z.shape[1:]:
        raise wrong("near", near, f"bool [L, G] = {tuple(z.shape[1:])}", "One row for each base latent.")
    if not is_whole(count, 1) or count > z.shape[1] * z.shape[2]:
        raise argument_error(
            "count",
            expected=f"a whole number from 1 to L·G = {z.shape[1] * z.shape[2]}",
            got=count,
            remedy="Take fewer poses.",
        )
    return OP(Args(z.detach(), near, group, count))
