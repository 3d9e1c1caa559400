"""Times of every op on the reference path, by pytest-benchmark: `make bench`."""

import pytest

from groupcc import ops
from groupcc.cli.bench import cases


@pytest.mark.parametrize("case", cases("small"), ids=lambda case: case.name)
def test_op(benchmark, case):
    with ops.use_backend("reference"):
        benchmark(case.run)
    benchmark.extra_info["floor_bytes"] = case.floor_bytes
