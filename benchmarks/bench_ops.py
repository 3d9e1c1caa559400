"""Times of every op at the demo's sizes on the backend in force, by pytest-benchmark: `make bench`."""

import pytest

from groupcc.bench.suites import suite


@pytest.mark.parametrize(("op", "build"), suite("small"), ids=lambda value: value if isinstance(value, str) else "")
def test_op(benchmark, op, build):
    case = build()
    benchmark(case.build())
    benchmark.extra_info |= {"case": case.variant, "floor_bytes": case.nbytes, "floor_flops": case.flops}
