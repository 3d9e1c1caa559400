"""The C++ extension. Tensors lie on the CPU and, where csrc does not say otherwise, contiguous; outputs come last.

Each function checks shapes and types before a kernel runs: ValueError names the argument, IndexError an index that does
not exist.
"""

from collections.abc import Sequence

from torch import Tensor

openmp: bool

class Block:
    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def available_isas() -> list[str]: ...
def cpu_is_intel() -> bool: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def empty_cache() -> int: ...
def set_cache_limit(bytes: int) -> None: ...
def cache_limit() -> int: ...
def cached_bytes() -> int: ...

class Folds:
    def __init__(self, elements: Tensor, order: Tensor, starts: Tensor, forth: Tensor, back: Tensor) -> None: ...

class Layout:
    def __init__(self, offset: Tensor, stride: Tensor, N: int, width: int) -> None: ...

class BatchTopk:
    def __init__(self, pre_acts: Tensor, k: int, threads: int) -> None: ...
    @property
    def K(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    def write(self, acts: Tensor, indices: Tensor) -> None: ...

def topk(pre_acts: Tensor, acts: Tensor, indices: Tensor, threads: int) -> None: ...
def encode_topk_round(
    rows: Tensor, shift: Tensor | None, against: Tensor | None, rounded: Tensor, stats: Tensor, threads: int
) -> None: ...
def encode_topk_choose(
    z: Tensor,
    x: Tensor,
    W: Tensor,
    b: Tensor,
    latent_stats: Tensor,
    example_stats: Tensor,
    centre_size: float,
    acts: Tensor,
    indices: Tensor,
    failed: Tensor,
    begin: int,
    threads: int,
) -> int: ...
def encode_topk_backward(grad: Tensor, indices: Tensor, x: Tensor, d_W: Tensor, d_b: Tensor, threads: int) -> None: ...
def sparse_decode(
    acts: Tensor, indices: Tensor, W_dec: Tensor, bias: Tensor | None, out: Tensor, threads: int
) -> None: ...
def sparse_decode_backward(
    grad: Tensor,
    scale: Tensor | None,
    acts: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    d_acts: Tensor,
    d_W_dec: Tensor,
    d_bias: Tensor | None,
    threads: int,
) -> None: ...
def decode_loss(
    acts: Tensor,
    indices: Tensor,
    W_dec: Tensor,
    bias: Tensor | None,
    target: Tensor,
    tap_index: Tensor | None,
    tap_weight: Tensor | None,
    loss: Tensor,
    residual: Tensor,
    threads: int,
) -> None: ...
def orbit_gather(maps: Tensor, points: Tensor, acts: Tensor, bspline: bool, threads: int) -> int: ...
def orbit_gather_backward(maps: Tensor, points: Tensor, acts: Tensor, bspline: bool, threads: int) -> None: ...
def group_correlate_transform(
    x: Tensor, out: Tensor, folds: Folds, source: Layout, target: Layout, back: bool, threads: int
) -> None: ...
def group_correlate_max(
    acts: Tensor,
    W: Tensor,
    b: Tensor,
    values: Tensor,
    poses: Tensor,
    left: Folds,
    inverse: Folds,
    sizes: Sequence[tuple[int, int, int]],
    threads: int,
) -> None: ...
def group_decode_loss(
    acts: Tensor,
    indices: Tensor,
    poses: Tensor,
    table: Tensor,
    W: Tensor,
    bias: Tensor | None,
    target: Tensor,
    residual: Tensor,
    dots: Tensor | None,
    column_sums: Tensor | None,
    threads: int,
) -> float: ...
def group_encode_at(
    x: Tensor,
    indices: Tensor,
    poses: Tensor,
    table: Tensor,
    W: Tensor,
    dots: Tensor,
    column_sums: Tensor | None,
    threads: int,
) -> None: ...
def group_encode_at_backward(
    x: Tensor, acts: Tensor, indices: Tensor, poses: Tensor, table: Tensor, d_W: Tensor, threads: int
) -> None: ...
def pose_maxima(z: Tensor, near: Tensor, between: Tensor, taken: Tensor, values: Tensor, threads: int) -> None: ...
def take_scaled(x: Tensor, indices: Tensor, out: Tensor, factor: float, threads: int) -> None: ...
