// group_correlate: the transforms of rows by a small matrix, between functions on the group and coefficients of irreps.
#pragma once

#include <cstdint>

#include "group_fold.h"
#include "isa.h"

namespace groupcc {

// Of each example n, rows of `width` elements by the matrix of `folds`: in to out, R coefficients of G elements, or back.
// Row c of example n lies at in + in_offset[c] + n · in_stride[c], and so for out; offsets and strides are in elements.
struct TransformArgs {
    const void* in;
    void* out;
    Folds folds;
    const std::int64_t *in_offset, *in_stride;
    const std::int64_t *out_offset, *out_stride;
    std::int64_t width;
    bool back;
};

struct GroupCorrelateKernels {
    // float, double; `buffer` [G, 64] of them is the thread's own.
    void (*transform[2])(const TransformArgs& args, std::int64_t begin, std::int64_t end, void* buffer);
};

GROUPCC_DECLARE(GroupCorrelateKernels, group_correlate_kernels)

}  // namespace groupcc
