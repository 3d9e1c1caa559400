// topk: pre_acts [N, L] → acts [N, k], indices [N, k]. batchtopk: → acts [N, K], indices [N, K], threshold [].
//
// An element is ordered by a key: the higher bits order its value (NaN above infinity, −0 equal to +0), the lower hold
// ~index, so that the larger of two keys is the one to choose first. Keys are 64 bits, for float64 128.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace groupcc {

// Values are counted by so many bits at a time, where the k-th largest is looked for.
constexpr int digit_bits = 11, n_digits = 1 << digit_bits;

struct Rows {
    const void* pre_acts;  // [N, L], rows `stride` elements apart, each contiguous
    std::int64_t stride, N, L;
};

struct SelectionKernels {
    // Rows [begin, end) of topk. `scratch`: this thread's own, of scratch_bytes(L, k), aligned to 64.
    void (*topk[4])(const Rows& rows, std::int64_t k, void* acts, std::int64_t* indices, std::int64_t begin,
                    std::int64_t end, void* scratch);  // by Dtype
    std::size_t (*scratch_bytes[4])(std::int64_t L, std::int64_t k);
};

GROUPCC_DECLARE(SelectionKernels, selection_kernels)

}  // namespace groupcc
