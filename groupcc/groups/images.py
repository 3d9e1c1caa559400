"""Images resampled under matrices: every element through the same low-pass, exact where the pixels allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from groupcc.errors import argument_error
from groupcc.groups.arrays import BoolArray, FloatArray

__all__ = ["WHOLE", "Frame", "check_images", "resample", "resample_each"]


@dataclass(frozen=True)
class Frame:
    """Which part of a source image an output shows. Points are (x, y) in pixels; pixel centres are whole numbers.

    - `centre`: the point of the source that stays where it is; None is the middle ((W−1)/2, (H−1)/2).
    - `out_centre`: the point of the output where `centre` comes to lie; None is the output's middle.
    - `size`: the output's (h, w); None is the source's.

    Example: a source of 9 x 9 pixels, `centre` (4, 4), `out_centre` (2, 2), `size` (5, 5). Output pixel (0, 0) shows
    source pixel (2, 2) under the identity, and (6, 6) under the half turn.
    """

    centre: tuple[float, float] | None = None
    out_centre: tuple[float, float] | None = None
    size: tuple[int, int] | None = None


WHOLE = Frame()
"""The whole source about its middle."""


def resample(
    images: torch.Tensor, backward: FloatArray, exact: BoolArray, frame: Frame = WHOLE, *, antialias: bool = True
) -> torch.Tensor:
    """Images turned by matrices: out[b, s](q) = x_b(centre + backward_s (q − out_centre)).

    - `images`: float [B, C, H, W]. Returns the same dtype, [B, S, C, h, w], with the points of `frame`.
    - `backward` [S, 2, 2]: where each transform takes an output's offset from in the source, M_g⁻¹ for element g.
    - `exact` bool [S]: which of them map the pixel lattice onto itself.
    - `antialias`: every transform, the identity too, samples the source with the cubic B-spline as its kernel: a
      low-pass near a Gaussian of σ = 0.58 pixels, whose width is the same at every fractional position. Without it
      the kernel interpolates (Keys 1981, cubic convolution, a = −½). Every angle but the multiples of 90° then loses
      detail that those keep: a 90° pattern in whatever is measured next.

    An exact transform is a copy, of the source or of the smoothed source, if the frame puts its points on source
    pixels; T_g T_h = T_gh is then exact. Outside the source the value is 0. Computed in at least fp32.
    Differentiable in `images`; deterministic on the CPU.
    """
    check_images(images, minimum_dim=4)
    points = _source_points(frame, images.shape[-2:], backward)
    out_height, out_width = frame.size or images.shape[-2:]
    source, origin = _window(images, points)
    kernel = _cubic_bspline if antialias else _keys
    on_lattice = _smoothed(source) if antialias and bool(np.any(exact)) else source
    transformed = []
    for at, is_exact in zip(points, exact, strict=True):
        whole = np.rint(at)
        if is_exact and np.abs(at - whole).max(initial=0.0) < 1e-6:
            transformed.append(_copy(on_lattice, whole.astype(np.int64) - origin))
        else:
            transformed.append(_sample(source, at - origin, kernel))
    if not transformed:
        return images.new_empty(images.shape[0], 0, images.shape[1], out_height, out_width)
    return torch.stack(transformed, dim=1).to(images.dtype)


def resample_each(
    images: torch.Tensor, backward: FloatArray, exact: BoolArray, *, antialias: bool = True
) -> torch.Tensor:
    """`resample` of whole images under any leading axes: [..., C, H, W] → [..., S, C, H, W]."""
    check_images(images, minimum_dim=3)
    out = resample(images.reshape(-1, *images.shape[-3:]), backward, exact, antialias=antialias)
    return out.reshape(*images.shape[:-3], *out.shape[1:])


def _source_points(frame: Frame, source: tuple[int, ...], backward: FloatArray) -> list[npt.NDArray[np.float64]]:
    """Where each transform reads each output pixel, [h, w, 2] as (x, y), one array for each transform."""
    height, width = source
    out_height, out_width = frame.size or (height, width)
    centre = frame.centre or ((width - 1) / 2, (height - 1) / 2)
    out_centre = frame.out_centre or ((out_width - 1) / 2, (out_height - 1) / 2)
    x = np.arange(out_width) - out_centre[0]
    y = np.arange(out_height) - out_centre[1]
    offsets = np.stack(np.meshgrid(x, y), axis=-1)
    return [offsets @ matrix.T + np.array(centre) for matrix in backward]


def _window(images: torch.Tensor, points: list[np.ndarray]) -> tuple[torch.Tensor, np.ndarray]:
    """The part of the images that the points' kernels reach, in at least fp32, and its first pixel (x, y)."""
    size = np.array(images.shape[:-3:-1])
    low, high = np.zeros(2, np.int64), size
    if points and points[0].size:
        reach = np.stack([p.reshape(-1, 2) for p in points]).reshape(-1, 2)
        low = np.clip(np.floor(reach.min(0)).astype(np.int64) - 2, 0, size - 1)
        high = np.clip(np.ceil(reach.max(0)).astype(np.int64) + 3, low + 1, size)
    part = images[..., low[1] : high[1], low[0] : high[0]]
    return part if part.dtype in (torch.float32, torch.float64) else part.float(), low


def _copy(source: torch.Tensor, points: np.ndarray) -> torch.Tensor:
    height, width = source.shape[-2:]
    inside = (points >= 0).all(-1) & (points[..., 0] < width) & (points[..., 1] < height)
    flat = np.where(inside, points[..., 1] * width + points[..., 0], 0)
    index = torch.from_numpy(flat).to(source.device)
    values = source.flatten(-2)[..., index.reshape(-1)].reshape(*source.shape[:-2], *flat.shape)
    if inside.all():
        return values
    return values * torch.from_numpy(inside).to(source)


def _sample(source: torch.Tensor, points: np.ndarray, kernel: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    height, width = source.shape[-2:]
    floor = np.floor(points)
    weights = kernel(points - floor)  # [h, w, 2 (x, y), 4 taps]
    taps = floor.astype(np.int64)[..., None] + np.arange(-1, 3)
    inside = (taps >= 0) & (taps < np.array([width, height])[:, None])
    weights = np.where(inside, weights, 0.0)
    taps = np.where(inside, taps, 0)
    index = taps[..., 1, :, None] * width + taps[..., 0, None, :]
    weight = weights[..., 1, :, None] * weights[..., 0, None, :]
    # A weighted sum of 16 rows of a table of pixels, which embedding_bag does in one pass.
    table = source.flatten(-2).flatten(0, 1).T.contiguous()
    out = F.embedding_bag(
        torch.from_numpy(index.reshape(-1, 16)).to(source.device),
        table,
        mode="sum",
        per_sample_weights=torch.from_numpy(weight.reshape(-1, 16)).to(source),
    )
    return out.T.reshape(*source.shape[:-2], *points.shape[:2])


def _cubic_bspline(t: np.ndarray) -> np.ndarray:
    taps = [(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
    return np.stack(taps, axis=-1) / 6


def _keys(t: np.ndarray) -> np.ndarray:
    taps = [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]
    return np.stack(taps, axis=-1) / 2


def _smoothed(source: torch.Tensor) -> torch.Tensor:
    taps = torch.from_numpy(_cubic_bspline(np.zeros(()))[:3]).to(source)
    channels = source.shape[1]
    rows = F.conv2d(source, taps.view(1, 1, 1, 3).expand(channels, 1, 1, 3), padding=(0, 1), groups=channels)
    return F.conv2d(rows, taps.view(1, 1, 3, 1).expand(channels, 1, 3, 1), padding=(1, 0), groups=channels)


def check_images(images: object, minimum_dim: int) -> None:
    """ArgumentError unless `images` is a floating-point tensor with pixels."""
    if not isinstance(images, torch.Tensor) or images.dim() < minimum_dim or not images.is_floating_point():
        shape = "[B, C, H, W]" if minimum_dim == 4 else "[..., C, H, W]"
        got = (
            f"{images.dtype} of shape {tuple(images.shape)}"
            if isinstance(images, torch.Tensor)
            else type(images).__name__
        )
        raise argument_error(
            "images",
            expected=f"a floating-point tensor {shape}",
            got=got,
            remedy="Convert uint8 images with images.float() / 255 and add missing axes with images[None].",
        )
    if 0 in images.shape[-2:]:
        raise argument_error(
            "images", expected="at least one pixel", got=f"shape {tuple(images.shape)}", remedy="Skip empty images."
        )
