// topk: pre_acts [N, L] → acts [N, k], indices [N, k].
#pragma once

#include "isa.h"
#include "selection.h"

namespace groupcc {

struct TopkKernels {
    // Rows [begin, end) of topk. `scratch`: this thread's own, of scratch_bytes(L, k), aligned to 64.
    void (*topk[4])(const Rows& rows, std::int64_t k, void* acts, std::int64_t* indices, std::int64_t begin,
                    std::int64_t end, void* scratch);  // by Dtype
    std::size_t (*scratch_bytes[4])(std::int64_t L, std::int64_t k);
};

GROUPCC_DECLARE(TopkKernels, topk_kernels)

}  // namespace groupcc
