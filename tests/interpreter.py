"""Mends Triton's interpreter when imported: it truncates float32 to bfloat16 where GPUs round to the nearest."""

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_convert = interpreter._convert_float


def _rounded(values, source, target, rounding):
    if (source, target) != (tl.float32, tl.bfloat16):
        return _convert(values, source, target, rounding)
    rounded = torch.from_numpy(np.array(values, dtype=np.float32)).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view(np.uint16)


interpreter._convert_float = _rounded
