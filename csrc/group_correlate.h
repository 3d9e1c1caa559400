// group_correlate: the transforms of rows by a small matrix, between functions on the group and coefficients of irreps.
#pragma once

#include <cstdint>

#include "isa.h"

namespace groupcc {

// out[n, r, :] = Σ_c matrix[c, r] · in[n, c, :] for C rows in and R rows out of `width` elements each. Row c of example
// n lies at in + in_offset[c] + n · in_stride[c], and so for out; offsets and strides are in elements.
struct TransformArgs {
    const void* in;
    void* out;
    const void* matrix;  // [C, R]
    const std::int64_t *in_offset, *in_stride;    // [C]
    const std::int64_t *out_offset, *out_stride;  // [R]
    std::int64_t C, R, width;
};

struct GroupCorrelateKernels {
    void (*transform[2])(const TransformArgs& args, std::int64_t begin, std::int64_t end);  // float, double
};

GROUPCC_DECLARE(GroupCorrelateKernels, group_correlate_kernels)

}  // namespace groupcc
