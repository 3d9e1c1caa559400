"""Types of a group's tables, which nobody may write to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "FloatArray", "IntArray", "frozen"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def frozen(array: Any) -> Any:
    """A copy that cannot be written to: tables are shared by everybody who asks a group for them."""
    array = np.array(array)
    array.setflags(write=False)
    return array
