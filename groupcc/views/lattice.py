"""Where a layer's output pixels lie on its input: stride, offset and receptive field, measured and not assumed."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from groupcc.errors import ArgumentError, argument_error
from groupcc.views.layers import LayerReader, evaluation_mode

__all__ = ["Lattice", "measure_lattice"]

ALIGNMENT = 64
"""A larger probe grows by a multiple of this, so that paddings that depend on the size's remainder stay the same."""


class _AxisLattice(NamedTuple):
    """The lattice along one axis."""

    stride: float
    offset: float
    receptive_field: int

    def span(self, u: int) -> tuple[int, int]:
        """The first and the last input pixel that output u sees."""
        first = round(self.stride * u + self.offset - (self.receptive_field - 1) / 2)
        return first, first + self.receptive_field - 1

    def __str__(self) -> str:
        return f"({self.stride:g}, {self.offset:g}, {self.receptive_field})"


@dataclass(frozen=True)
class Lattice:
    """The pixel lattice of a layer: output pixel u, along either axis, is centred on input pixel stride·u + offset.

    Pixel centres are whole numbers. `receptive_field` is the side in input pixels of the square that one output pixel
    sees; `map_size` (height, width) is the layer's output at the input size it was measured with, None when given
    by hand.
    """

    stride: float
    offset: float
    receptive_field: int
    map_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        numbers = (self.stride, self.offset, self.receptive_field)
        if not all(math.isfinite(number) for number in numbers) or self.stride <= 0 or self.receptive_field < 1:
            raise argument_error(
                "lattice",
                expected="a finite stride above 0, a finite offset and a receptive field of at least one pixel",
                got=f"stride={self.stride}, offset={self.offset}, receptive_field={self.receptive_field}",
                remedy="measure_lattice(model, layer, (height, width)) measures them for convolutional models.",
            )


def measure_lattice(
    model: nn.Module, layer: str, input_size: tuple[int, int] = (224, 224), channels: int = 3
) -> Lattice:
    """The lattice of a convolutional layer, from which input pixels reach which outputs.

    Input columns ≤ x are set to NaN, which convolutions, pooling, ReLU and batch norm all pass on: output column u
    turns NaN when x reaches its first input column lo(u). Columns ≥ x give its last, hi(u). Then (lo + hi)/2 must be
    exactly stride·u + offset and hi − lo + 1 the same at every u whose receptive field lies inside the input, along
    both axes. Runs on a copy on the CPU. Fast convolution algorithms mix neighbouring tiles and would spread NaN, so
    whatever looks uneven in float32 is traced again in float64, which has none of them. Where the input's border cuts
    every receptive field the probe is enlarged 2 and 4 times; across the traced axis it is as small as the model
    takes. Weights don't matter, only the architecture does.

    Raises:
        ArgumentError: unknown layer; or no such lattice exists (attention, global pooling, squeeze-excitation,
            normalisation over space, resampling by an uneven ratio), in which case it can be given by hand.
    """
    height, width = input_size
    trace = _Trace(model, layer, channels)
    map_size = trace.map_size(height, width)
    reason = ""
    for dtype in (torch.float32, torch.float64):
        try:
            trace.use(dtype)
            along_x, scale = _measure_axis(trace, 3, width, height, map_size[1])
            along_y, _ = _measure_axis(trace, 2, height, width, map_size[0], hint=along_x, scale=scale)
            if along_x != along_y:
                raise _NoLatticeError(
                    f"different (stride, offset, receptive field) along its axes: x {along_x}, y {along_y}"
                )
        except _NoLatticeError as error:
            reason = str(error)
            if error.larger_may_help:
                break
        except ArgumentError:
            raise
        except Exception:
            # A constant or a cast inside the model that is float32 whatever the parameters are.
            if dtype == torch.float32:
                raise
        else:
            return Lattice(along_x.stride, along_x.offset, along_x.receptive_field, map_size)
    raise argument_error(
        "layer",
        expected=f"a layer whose output pixels ({layer!r}) each see a bounded square of a {height} x {width} input",
        got=reason,
        remedy="If you know it, pass lattice=Lattice(stride=..., offset=..., receptive_field=...) to harvest.",
    )


class _NoLatticeError(Exception):
    def __init__(self, reason: str, *, larger_may_help: bool = False) -> None:
        super().__init__(reason)
        self.larger_may_help = larger_may_help


def _measure_axis(
    trace: _Trace,
    dim: int,
    length: int,
    cross: int,
    outputs: int,
    *,
    hint: _AxisLattice | None = None,
    scale: int = 1,
) -> tuple[_AxisLattice, int]:
    """Returns the lattice along one axis, and how many times the probe had to be enlarged."""
    reason = ""
    while scale <= 4:
        grow = (scale - 1) * ALIGNMENT * math.ceil(length / ALIGNMENT)
        try:
            axis = _Axis(trace, dim, length + grow, cross, hint)
        except Exception as error:
            if scale == 1:
                raise
            reason += f"; and the model refuses {length + grow} pixels ({type(error).__name__})"
            break
        try:
            measured = axis.measure()
        except _NoLatticeError as error:
            if not error.larger_may_help:
                raise
            reason = str(error)
            scale *= 2
            continue
        if (axis.outputs - outputs) * measured.stride != grow:
            raise _NoLatticeError(f"a map that doesn't grow by one pixel in {measured.stride:g} when the input grows")
        return measured, scale
    raise _NoLatticeError(reason, larger_may_help=True)


class _Trace:
    """Sends NaN through a copy of a model and says which output columns or rows it reaches."""

    def __init__(self, model: nn.Module, layer: str, channels: int) -> None:
        self.channels = channels
        LayerReader(model, layer)  # an unknown layer is said before anything is copied
        try:
            self.model = copy.deepcopy(model).cpu()
        except Exception as error:
            raise _not_copied(f"{type(error).__name__}: {error}") from error
        self.use(torch.float32)
        self.reader = LayerReader(self.model, layer)

    def use(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.model.to(dtype)

    def run(self, inputs: torch.Tensor) -> torch.Tensor:
        with evaluation_mode(self.model):
            try:
                return self.reader.maps(inputs.to(self.dtype))
            except ArgumentError as error:
                replaced = [name for name, module in self.model.named_modules() if "forward" in vars(module)]
                if replaced:
                    # A function put in place of forward keeps calling the original's modules, not the copy's.
                    raise _not_copied(f"a forward replaced on {replaced[0] or 'the model'}, and: {error}") from error
                raise

    def image(self, height: int, width: int) -> torch.Tensor:
        return torch.rand(1, self.channels, height, width, generator=torch.Generator().manual_seed(0))

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        output = self.run(self.image(height, width))
        if not output.isfinite().all():
            raise argument_error(
                "model",
                expected="finite activations for a random image in [0, 1]",
                got="NaN or infinity",
                remedy="Check the model's weights.",
            )
        return int(output.shape[1]), int(output.shape[2])


class _Axis:
    def __init__(self, trace: _Trace, dim: int, length: int, cross: int, hint: _AxisLattice | None) -> None:
        self.trace = trace
        self.dim = dim
        self.length = length
        self.hint = hint
        self.outputs = trace.map_size(*self._size(cross))[dim - 2]
        # A strip is enough, if the model takes one, and many times faster.
        strip = min(cross, ALIGNMENT + cross % ALIGNMENT)
        try:
            if trace.map_size(*self._size(strip))[dim - 2] == self.outputs:
                cross = strip
        except Exception:
            pass
        self.image = trace.image(*self._size(cross))
        self._seen: dict[tuple[bool, int], torch.Tensor] = {}

    def _size(self, cross: int) -> tuple[int, int]:
        return (cross, self.length) if self.dim == 3 else (self.length, cross)

    def reached(self, x: int, *, before: bool) -> torch.Tensor:
        """Which outputs, bool [outputs], the input columns ≤ x (`before`) or ≥ x reach."""
        if (before, x) not in self._seen:
            poisoned = self.image.transpose(self.dim, 3).clone()
            poisoned[..., slice(None, x + 1) if before else slice(x, None)] = torch.nan
            output = self.trace.run(poisoned.transpose(self.dim, 3).contiguous())
            self._seen[before, x] = output.isnan().movedim(self.dim - 1, 3).flatten(0, 2).any(0)
        return self._seen[before, x]

    def edge(self, u: int, *, first: bool, guess: int | None = None) -> int:
        """The first (or last) input column that output u sees."""

        def turned(x: int) -> bool:
            return bool(self.reached(x if first else self.length - 1 - x, before=first)[u])

        if guess is not None:
            x = guess if first else self.length - 1 - guess
            if 0 < x < self.length and turned(x) and not turned(x - 1):
                return guess
        low, high = -1, self.length - 1
        if not turned(high):
            raise _NoLatticeError("an output that no input pixel reaches through")
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if turned(middle) else (middle, high)
        return high if first else self.length - 1 - high

    def span(self, u: int, guess: tuple[int, int] | None = None) -> tuple[int, int]:
        first, last = guess or (None, None)
        return self.edge(u, first=True, guess=first), self.edge(u, first=False, guess=last)

    def measure(self) -> _AxisLattice:
        if self.outputs < 3:
            raise _NoLatticeError(f"a map only {self.outputs} pixels wide", larger_may_help=True)
        if self.reached(0, before=True).all() or self.reached(self.length - 1, before=False).all():
            reason = f"output pixels that all see the border of an input of {self.length} pixels"
            raise _NoLatticeError(reason, larger_may_help=True)
        middle = self.outputs // 2
        span = self.span(middle, self._guess(middle))
        self._inside(span)
        receptive_field = span[1] - span[0] + 1
        following = self.span(middle + 1, self._guess(middle + 1))
        self._inside(following)
        stride = sum(following) / 2 - sum(span) / 2
        if stride <= 0:
            raise _NoLatticeError("neighbouring output pixels that see the same input pixels")
        measured = _AxisLattice(stride, sum(span) / 2 - stride * middle, receptive_field)
        inside = [u for u in range(self.outputs) if self._is_inside(measured.span(u))]
        if len(inside) < 3:
            raise _NoLatticeError("fewer than 3 output pixels that see no border", larger_may_help=True)
        for u in {inside[0], middle - 1, middle, middle + 1, inside[-1]} & set(inside):
            expected = measured.span(u)
            actual = self.span(u, expected)
            if actual != expected:
                raise _NoLatticeError(
                    f"no even lattice: output {u} sees input pixels {actual[0]} to {actual[1]}, where stride "
                    f"{stride:g} and a receptive field of {receptive_field} put {expected[0]} to {expected[1]}"
                )
        return measured

    def _guess(self, u: int) -> tuple[int, int] | None:
        """What output u sees if this axis is like the one that was measured before."""
        return None if self.hint is None else self.hint.span(u)

    def _is_inside(self, span: tuple[int, int]) -> bool:
        # Column 0 can stand for any column left of the image: only spans strictly inside are known.
        return span[0] >= 1 and span[1] <= self.length - 2

    def _inside(self, span: tuple[int, int]) -> None:
        if not self._is_inside(span):
            reason = f"receptive fields that the border of {self.length} pixels cuts"
            raise _NoLatticeError(reason, larger_may_help=True)


def _not_copied(got: str) -> ArgumentError:
    return argument_error(
        "model",
        expected="a model that copy.deepcopy can copy, to trace its receptive fields",
        got=got,
        remedy="Pass lattice=Lattice(stride=..., offset=..., receptive_field=...) to harvest.",
    )
