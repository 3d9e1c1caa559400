"""Mends Triton's interpreter when imported.

It truncates float32 to bfloat16 where GPUs round to the nearest; and before Triton 3.7 a loop's bound that a kernel
computes is an array of one number, which NumPy from 2.4 on does not take for an integer.
"""

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_convert = interpreter._convert_float
_patch_tensor = interpreter._patch_lang_tensor


def _rounded(values, source, target, rounding):
    if (source, target) != (tl.float32, tl.bfloat16):
        return _convert(values, source, target, rounding)
    rounded = torch.from_numpy(np.array(values, dtype=np.float32)).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view(np.uint16)


interpreter._convert_float = _rounded


def _patch_tensor_index(tensor, scope):
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))


interpreter._patch_lang_tensor = _patch_tensor_index
