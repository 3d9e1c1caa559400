"""The bundled network: a small Inception-style convolutional net with no symmetry built in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from groupcc.errors import DataError, argument_error
from groupcc.files import read_json

__all__ = ["MIN_SIZE", "SmallInception", "checked_state", "fold_batch_norm", "load_net"]

MIN_SIZE = 65
WEIGHTS = Path(__file__).with_name("small_inception.safetensors")


class ConvReLU(nn.Module):
    """Convolution with bias, an odd kernel and equal padding on every side, then ReLU.

    In training a batch norm stands between the two; `fold_batch_norm` takes it out again.
    """

    def __init__(self, d_in: int, d_out: int, kernel: int, *, stride: int = 1, batch_norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(d_in, d_out, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(d_out) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(x)))


class Mixed(nn.Module):
    """Inception block (Szegedy et al. 2015, section 4): branches 1x1, 1x1-3x3, 1x1-5x5 and pool-1x1, side by side."""

    def __init__(
        self,
        d_in: int,
        *,
        one: int,
        three: tuple[int, int],
        five: tuple[int, int],
        pool: int,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.one = ConvReLU(d_in, one, 1, batch_norm=batch_norm)
        self.three = nn.Sequential(
            ConvReLU(d_in, three[0], 1, batch_norm=batch_norm),
            ConvReLU(three[0], three[1], 3, batch_norm=batch_norm),
        )
        self.five = nn.Sequential(
            ConvReLU(d_in, five[0], 1, batch_norm=batch_norm),
            ConvReLU(five[0], five[1], 5, batch_norm=batch_norm),
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), ConvReLU(d_in, pool, 1, batch_norm=batch_norm))
        self.d_out = one + three[1] + five[1] + pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)


class SmallInception(nn.Module):
    """A small InceptionV1 for 65-pixel images and larger, with layers named as InceptionV1's.

    `conv1` 7x7/2, pool/2, `conv2` 3x3, `mixed3a` (64 channels), `mixed3b` (80), pool/2, `mixed4a` (128), global
    average pool, `classifier`. `mixed3b` has stride 4 and offset 0: its index u is centred on input pixel 4u.

    Input: float RGB in [0, 1], [B, 3, H, W] with H, W >= 65; normalised inside. Output: logits [B, n_classes].

    Raises (forward):
        ArgumentError: an input of another type, shape or size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_classes: int, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.45))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))
        self.conv1 = ConvReLU(3, 32, 7, stride=2, batch_norm=batch_norm)
        self.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = ConvReLU(32, 48, 3, batch_norm=batch_norm)
        self.mixed3a = Mixed(48, one=16, three=(24, 32), five=(8, 8), pool=8, batch_norm=batch_norm)
        self.mixed3b = Mixed(64, one=16, three=(32, 40), five=(8, 16), pool=8, batch_norm=batch_norm)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        self.mixed4a = Mixed(80, one=32, three=(40, 64), five=(12, 16), pool=16, batch_norm=batch_norm)
        self.classifier = nn.Linear(128, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise argument_error(
                "x", expected="float RGB in [0, 1]", got=f"dtype {x.dtype}", remedy="Divide uint8 pixels by 255."
            )
        if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < MIN_SIZE:
            raise argument_error(
                "x",
                expected=f"[B, 3, H, W] with H and W at least {MIN_SIZE}",
                got=f"shape {tuple(x.shape)}",
                remedy="Give RGB images, channels first, and enlarge small ones.",
            )
        x = (x - self.mean) / self.std
        x = self.mixed3b(self.mixed3a(self.conv2(self.pool1(self.conv1(x)))))
        x = self.mixed4a(self.pool3(x))
        return self.classifier(x.mean(dim=(2, 3)))


@torch.no_grad()
def fold_batch_norm(net: SmallInception) -> SmallInception:
    """A net without batch norms that computes what `net` computes in eval mode.

    Each convolution takes w' = w·γ/√(σ²+ε) and b' = (b − μ)·γ/√(σ²+ε) + β, in float64.
    """
    plain = SmallInception(net.classifier.out_features)
    state: dict[str, Tensor] = {}
    modules = dict(net.named_modules())
    source = net.state_dict()
    for key in plain.state_dict():
        norm = modules.get(key.rsplit(".conv.", 1)[0] + ".norm") if ".conv." in key else None
        value = source[key]
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            if key.endswith("weight"):
                value = value.double() * scale[:, None, None, None]
            else:
                value = (value.double() - norm.running_mean.double()) * scale + norm.bias.double()
        state[key] = value.to(torch.float32)
    plain.load_state_dict(state)
    return plain.eval()


def load_net(weights: str | Path | None = None) -> nn.Module:
    """The bundled net: on the CPU, float32, in eval mode, its parameters frozen.

    The weights are stored as float16 (safetensors) and computed with as float32. They are checked against the SHA-256
    in the .json beside them, which also holds how they were trained and their accuracy.

    Args:
        weights: another file written by `python -m groupcc.zoo.train_net`; None for the bundled one.

    Raises:
        DataError: the weights or their record are missing, damaged, or not of this architecture.
    """
    path = WEIGHTS if weights is None else Path(weights)
    remedy = "Reinstall groupcc." if weights is None else "Write it again with python -m groupcc.zoo.train_net."
    state = checked_state(path, remedy)
    try:
        net = SmallInception(state["classifier.weight"].shape[0])
        net.load_state_dict({key: value.to(torch.float32) for key, value in state.items()})
    except (KeyError, RuntimeError, IndexError) as error:
        raise DataError(f"{path} does not hold the weights of SmallInception ({error}). {remedy}") from error
    return net.eval().requires_grad_(False)


def checked_state(path: Path, remedy: str) -> dict[str, Tensor]:
    """Returns the tensors of a .safetensors file whose SHA-256 the .json beside it records.

    Raises:
        DataError: the file or its record is missing or damaged; the message ends with the remedy.
    """
    try:
        payload = path.read_bytes()
        recorded = read_json(path.with_suffix(".json"))["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} or the record beside it can't be read ({error!r}). {remedy}") from error
    if hashlib.sha256(payload).hexdigest() != recorded:
        raise DataError(f"{path} is damaged: its SHA-256 is not the recorded one. {remedy}")
    try:
        return load(payload)
    except SafetensorError as error:
        raise DataError(f"{path} does not hold the weights of a net ({error}). {remedy}") from error
