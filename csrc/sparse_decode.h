// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
#pragma once

#include <cstdint>

#include "isa.h"

namespace groupcc {

struct DecodeArgs {
    const void* acts;
    const std::int64_t* indices;
    const void* W_dec;
    const void* bias;  // may be null
    void* out;
    std::int64_t N, K, L, M;
};

struct SparseDecodeKernels {
    // Rows [begin, end) of out.
    void (*decode[4])(const DecodeArgs& args, std::int64_t begin, std::int64_t end);  // by Dtype
};

GROUPCC_DECLARE(SparseDecodeKernels, sparse_decode_kernels)

}  // namespace groupcc
