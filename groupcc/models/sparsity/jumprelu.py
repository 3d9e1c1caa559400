"""jumprelu: a threshold for each latent, learned under a penalty on how many are active (Rajamanoharan et al. 2024)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.options import Option, number
from groupcc.models.sparsity.base import ForwardPass, Sparsity

__all__ = ["JumpReLU"]


class JumpReLU(Sparsity):
    """f = z·H(z − θ_l), and λ·Σ_l H(z_l − θ_l) in the loss: λ for each active latent (arXiv:2407.14435).

    θ_l = u·exp(log_threshold[l]). `log_threshold` [L] is a parameter; of latents with poses, one for all poses. u is
    the buffer `threshold` []: √(|G|·d_in), the root mean square norm of the activations that training sees, times what
    `fold_scale_` makes of it. Thresholds and `bandwidth` are in units of u, as in the paper, whose activations have
    norm 1.

    The gradients to θ are those of the paper, estimates of the expected loss's by a rectangle of width ε about θ:
    ∂f/∂θ = −(θ/ε)·[|z − θ| < ε/2] and ∂H/∂θ = −(1/ε)·[|z − θ| < ε/2], ε = u·bandwidth. The second is 0 to z, the first
    H(z − θ). Entries inside the rectangle and below θ are kept among the chosen latents while training, with act 0, so
    that their decoders tell θ what it would gain; z ≤ 0 never is inside. Example: θ = 1, ε = 0.5. z = 0.8 has act 0 and
    passes −2 times its act's gradient on to θ; z = 1.2 has act 1.2 and passes the same; z = 1.3 passes nothing.

    The total loss is the mean squared error over entries and λ·L0, so an active latent pays if it removes more than λ
    of the mean square, which training has scaled to about 1. λ rises linearly over the first `warmup` of training.
    """

    uses_k = False
    gradient_is_sparse = False
    options = (
        Option("coefficient", 1e-3, "a positive number", number(0), "Weight λ of the number of active latents."),
        Option("threshold", 0.03, "a positive number", number(0), "Thresholds at the start, over √(|G|·d_in)."),
        Option("bandwidth", 0.03, "a positive number", number(0), "Width ε of the rectangle, over √(|G|·d_in)."),
        Option("warmup", 0.1, "a share above 0, up to 1", number(0, 1), "Share of training over which λ rises."),
    )

    def add_state(self, crosscoder: Dictionary) -> None:
        super().add_state(crosscoder)
        crosscoder.threshold.fill_(math.sqrt(crosscoder.group.order * crosscoder.config.d_in))
        start = math.log(_option(crosscoder, "threshold"))
        crosscoder.register_parameter("log_threshold", nn.Parameter(torch.full_like(crosscoder.b_enc, start)))

    def select(self, pre_NR: Tensor, cc: Dictionary, which_NR: Tensor | None = None) -> Encoded:
        theta = _thresholds(cc) if which_NR is None else _thresholds(cc)[which_NR]
        theta_NR = theta.expand_as(pre_NR)
        above_NR = pre_NR.detach() - theta_NR.detach()
        kept = above_NR > 0
        if cc.training and torch.is_grad_enabled():
            kept |= (above_NR > -0.5 * _bandwidth(cc)) & (pre_NR.detach() > 0)
        # Active entries by their acts, then those inside the rectangle, whose place says nothing.
        order = torch.where(above_NR > 0, pre_NR.detach(), torch.where(kept, 0, -torch.inf))
        most = max(int(kept.sum(1).max()) if len(kept) else 1, 1)
        columns_NK = order.topk(min(most, pre_NR.shape[1]), dim=1).indices
        pre_NK, theta_NK = pre_NR.gather(1, columns_NK), theta_NR.gather(1, columns_NK)
        acts: Tensor = _Jump.apply(pre_NK, theta_NK, _bandwidth(cc))
        return Encoded(SparseLatents(acts, columns_NK), pre=pre_NK.detach())

    def lowest(self, values_NR: Tensor, cc: Dictionary) -> Tensor | None:
        return (_thresholds(cc).min() - 0.5 * _bandwidth(cc)).to(values_NR)

    def losses(self, seen: ForwardPass, cc: Dictionary) -> dict[str, tuple[Tensor, float]]:
        pre_NK, indices = seen.encoded.pre, seen.encoded.latents.indices
        assert pre_NK is not None
        active: Tensor = _Active.apply(pre_NK, _thresholds(cc)[indices], _bandwidth(cc))
        weight = _option(cc, "coefficient") * min(1.0, seen.progress / _option(cc, "warmup"))
        return {"l0": (active.sum(1).mean(), weight)}

    def reset_(self, latents_M: Tensor, cc: Dictionary) -> None:
        cc.get_parameter("log_threshold")[latents_M] = math.log(_option(cc, "threshold"))

    def copy_state_(self, source: Dictionary, target: Dictionary, copies: int = 1) -> None:
        super().copy_state_(source, target, copies)
        target.get_parameter("log_threshold").copy_(source.get_parameter("log_threshold").repeat_interleave(copies))


def _option(cc: Dictionary, name: str) -> float:
    value = cc.config.sparsity_options[name]
    assert not isinstance(value, tuple)
    return value


def _thresholds(cc: Dictionary) -> Tensor:
    """Returns θ [L]."""
    return cc.threshold * cc.get_parameter("log_threshold").exp()


def _bandwidth(cc: Dictionary) -> Tensor:
    """Returns ε, a scalar."""
    return cc.threshold * _option(cc, "bandwidth")


def _inside(z: Tensor, theta: Tensor, epsilon: Tensor) -> Tensor:
    """Returns which z lie in the rectangle about θ."""
    return ((z - theta).abs() < 0.5 * epsilon) & (z > 0)


class _Jump(torch.autograd.Function):
    """z·H(z − θ) of equal shapes, in the dtype of z; gradients as `JumpReLU` says."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, epsilon: Tensor) -> Tensor:
        ctx.save_for_backward(z, theta, epsilon)
        return torch.where(z > theta, z, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        z, theta, epsilon = ctx.saved_tensors
        (gradient,) = gradients
        to_theta = torch.where(_inside(z, theta, epsilon), gradient * (-theta / epsilon), 0)
        return torch.where(z > theta, gradient, 0), to_theta, None


class _Active(torch.autograd.Function):
    """H(z − θ) of equal shapes, in the dtype of θ; gradients as `JumpReLU` says."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, epsilon: Tensor) -> Tensor:
        ctx.save_for_backward(z, theta, epsilon)
        return (z > theta).to(theta.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        z, theta, epsilon = ctx.saved_tensors
        (gradient,) = gradients
        return None, torch.where(_inside(z, theta, epsilon), -gradient / epsilon, 0), None
