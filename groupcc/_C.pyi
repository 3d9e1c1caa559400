from collections.abc import Sequence

openmp: bool

class Block:
    def __init__(self, bytes: int) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class BatchSelection:
    def __init__(self, pre_acts: int, stride: int, N: int, L: int, k: int, dtype: int, threads: int) -> None: ...
    @property
    def K(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    def write(self, acts: int, indices: int) -> None: ...

def available_isas() -> list[str]: ...
def cpu_is_intel() -> bool: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def empty_cache() -> int: ...
def set_cache_limit(bytes: int) -> None: ...
def cache_limit() -> int: ...
def cached_bytes() -> int: ...
def orbit_gather(
    maps: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    points: int,
    acts: int,
    G: int,
    P: int,
    bspline: bool,
    dtype: int,
    threads: int,
) -> int: ...
def orbit_scatter(
    maps: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    points: int,
    acts: int,
    G: int,
    P: int,
    bspline: bool,
    dtype: int,
    threads: int,
) -> None: ...
def topk(
    pre_acts: int, stride: int, N: int, L: int, k: int, acts: int, indices: int, dtype: int, threads: int
) -> None: ...
def sparse_decode(
    acts: int,
    indices: int,
    W_dec: int,
    bias: int,
    out: int,
    N: int,
    K: int,
    L: int,
    M: int,
    dtype: int,
    threads: int,
) -> None: ...
def round_rows(rows: int, shift: int, against: int, rounded: int, stats: int, R: int, M: int, threads: int) -> None: ...
def encode_topk_choose(
    z: int,
    x: int,
    W: int,
    b: int,
    latent_stats: int,
    example_stats: int,
    centre_size: float,
    acts: int,
    indices: int,
    failed: int,
    n_examples: int,
    begin: int,
    n: int,
    L: int,
    M: int,
    k: int,
    threads: int,
) -> int: ...
def encode_topk_backward(
    grad: int,
    indices: int,
    x: int,
    d_W: int,
    d_b: int,
    N: int,
    K: int,
    L: int,
    M: int,
    dtype: int,
    threads: int,
) -> None: ...
def sparse_decode_backward(
    grad: int,
    scale: int,
    acts: int,
    indices: int,
    W_dec: int,
    d_acts: int,
    d_W_dec: int,
    d_bias: int,
    N: int,
    K: int,
    L: int,
    M: int,
    dtype: int,
    threads: int,
) -> None: ...
def decode_loss(
    acts: int,
    indices: int,
    W_dec: int,
    bias: int,
    target: int,
    maps: int,
    tap_index: int,
    tap_weight: int,
    S: int,
    pixels: int,
    P: int,
    T: int,
    loss: int,
    residual: int,
    N: int,
    K: int,
    L: int,
    G: int,
    D: int,
    dtype: int,
    threads: int,
) -> None: ...
def group_transform(
    in_: int,
    out: int,
    folds: tuple[int, ...],
    in_offset: int,
    in_stride: int,
    out_offset: int,
    out_stride: int,
    N: int,
    width: int,
    back: bool,
    dtype: int,
    threads: int,
) -> None: ...
def group_strongest(
    acts: int,
    W: int,
    b: int,
    values: int,
    poses: int,
    left: tuple[int, ...],
    inverse: tuple[int, ...],
    sizes: Sequence[tuple[int, int, int]],
    N: int,
    L: int,
    D: int,
    dtype: int,
    threads: int,
) -> None: ...
def take_scaled(x: int, indices: int, out: int, N: int, M: int, width: int, factor: float, threads: int) -> None: ...
def group_decode_loss(
    acts: int,
    indices: int,
    poses: int,
    table: int,
    W: int,
    bias: int,
    target: int,
    residual: int,
    dots: int,
    column_sums: int,
    N: int,
    K: int,
    L: int,
    G: int,
    D: int,
    dtype: int,
    threads: int,
) -> float: ...
def group_dots(
    x: int,
    indices: int,
    poses: int,
    table: int,
    W: int,
    dots: int,
    column_sums: int,
    N: int,
    K: int,
    L: int,
    G: int,
    D: int,
    dtype: int,
    threads: int,
) -> None: ...
def group_sums(
    x: int,
    acts: int,
    indices: int,
    poses: int,
    table: int,
    d_W: int,
    N: int,
    K: int,
    L: int,
    G: int,
    D: int,
    dtype: int,
    threads: int,
) -> None: ...
def pose_maxima(
    z: int,
    near: int,
    between: int,
    taken: int,
    values: int,
    N: int,
    L: int,
    G: int,
    count: int,
    stride_n: int,
    stride_l: int,
    stride_g: int,
    dtype: int,
    threads: int,
) -> None: ...
