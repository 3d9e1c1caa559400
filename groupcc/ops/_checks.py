"""Argument checks that several ops share."""

from __future__ import annotations

import torch

from groupcc.errors import ArgumentError, argument_error
from groupcc.groups import Group

__all__ = [
    "check_bias",
    "check_blocks",
    "check_correlate",
    "check_k",
    "check_latents",
    "check_poses",
    "check_selection",
    "wrong",
]


def wrong(name: str, tensor: torch.Tensor, expected: str, remedy: str) -> ArgumentError:
    """The error for a tensor of another type or shape than `expected`."""
    return argument_error(name, expected=expected, got=f"{tensor.dtype} of shape {tuple(tensor.shape)}", remedy=remedy)


def check_selection(pre_acts: torch.Tensor, k: int) -> None:
    """`pre_acts` is floating-point [N, L] and 1 ≤ k ≤ L, or ArgumentError."""
    if pre_acts.dim() != 2 or not pre_acts.is_floating_point():
        raise wrong("pre_acts", pre_acts, "a floating-point tensor [N, L]", "Flatten leading axes first.")
    check_k(k, pre_acts.shape[1])


def check_k(k: int, L: int) -> None:
    """k is an int from 1 to L, or ArgumentError."""
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= L:
        raise argument_error(
            "k",
            expected=f"a whole number from 1 to L = {L}",
            got=k,
            remedy="Choose fewer active latents, or a larger dictionary.",
        )


def check_latents(acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor | None) -> None:
    """`acts` and `indices` are [N, K], `W_dec` [L, G, D] and `b_dec` [G, D], of one dtype, or ArgumentError."""
    if acts.shape != indices.shape or acts.dim() != 2 or indices.dtype != torch.int64:
        raise argument_error(
            "indices",
            expected="int64 [N, K], the shape of acts",
            got=f"{indices.dtype} of shape {tuple(indices.shape)} beside acts of shape {tuple(acts.shape)}",
            remedy="Pass the pair that ops.topk returns.",
        )
    if W_dec.dim() != 3 or W_dec.dtype != acts.dtype:
        raise wrong(
            "W_dec", W_dec, f"{acts.dtype} of shape [L, G, D]", "Convert acts or W_dec so that both have one dtype."
        )
    if b_dec is not None and (b_dec.shape != W_dec.shape[1:] or b_dec.dtype != W_dec.dtype):
        raise wrong(
            "b_dec",
            b_dec,
            f"{W_dec.dtype} of shape [G, D] = {tuple(W_dec.shape[1:])}, or None",
            "Give one bias for each element of a decoder.",
        )


def check_blocks(name: str, W: torch.Tensor, like: torch.Tensor, group: Group) -> None:
    """`W` is [L, G, D] in the dtype and, but for L, the shape of `like` [N, G, D], or ArgumentError."""
    if W.dim() != 3 or W.shape[1] != group.order or W.shape[1:] != like.shape[1:] or W.dtype != like.dtype:
        raise wrong(
            name,
            W,
            f"{like.dtype} of shape [L, G, D] = [L, {group.order}, {like.shape[-1]}]",
            "One block for each element of the group, as wide as the activations and in their dtype.",
        )


def check_correlate(acts: torch.Tensor, W: torch.Tensor, group: Group) -> None:
    """Shapes and dtypes are what `group_correlate` takes, or ArgumentError."""
    if acts.dim() != 3 or acts.shape[1] != group.order or not acts.is_floating_point():
        raise wrong(
            "acts",
            acts,
            f"a floating-point tensor [N, G, D] with G = {group.order}, the order of {group}",
            "Pass orbits of this group.",
        )
    check_blocks("W", W, acts, group)


def check_poses(poses: torch.Tensor, indices: torch.Tensor) -> None:
    """`poses` is int64 in the shape of `indices` [N, K], int64 too, or ArgumentError."""
    for name, value in (("indices", indices), ("poses", poses)):
        if value.dtype != torch.int64 or value.dim() != 2 or value.shape != indices.shape:
            raise wrong(
                name,
                value,
                "int64 [N, K], indices and poses alike",
                "Pass the base latents and the poses that a tied crosscoder's encode returns.",
            )


def check_bias(name: str, bias: torch.Tensor, like: torch.Tensor, count: int, remedy: str) -> None:
    """`bias` is [count] in the dtype of `like`, or ArgumentError."""
    if bias.shape != (count,) or bias.dtype != like.dtype:
        raise wrong(name, bias, f"{like.dtype} of shape [L] = [{count}]", remedy)
