// group_correlate_max: acts [N, G, D] → the strongest pose of each of L base latents, and its value.
//
// Examples a chunk at a time, so that neither their coefficients nor z [N, L, G] are ever in memory: transform, product
// with the coefficients of W for each irrep, inverse transform, maximum.
#pragma once

#include <cstdint>

#include "group_fold.h"
#include "isa.h"

namespace groupcc {

// Rows [M, K] of A, `stride` apart, by W [K, columns]: `out` [M, columns], its rows `out_stride` apart. `columns` is
// lanes[…] or panel[…] of the kernels.
struct ProductArgs {
    const void *A, *W;
    void* out;
    std::int64_t M, K, stride, out_stride, columns;
};

struct GroupCorrelateMaxKernels {
    std::int64_t lanes[2];  // of float, double
    std::int64_t panel[2];  // columns of a product at most
    std::int64_t rows;      // of a product that are taken together
    // `columns` columns, column c the K elements at from[c], or zeros where that is null, to [K, columns].
    void (*pack[2])(const void* const* from, void* to, std::int64_t K, std::int64_t columns);
    void (*product[2])(const ProductArgs& args);
    // z[h] = Σ_r matrix[r, h] · row r, which is the L elements at products + rows[r], readable up to a whole vector, as
    // b is: values[l] = max_h (z[h, l] + b[l]), poses[l] = the first h that has it; NaN is the largest. `buffer` holds
    // 2 G vectors.
    void (*strongest[2])(const Folds& folds, const void* products, const std::int64_t* rows, const void* b,
                         void* values, std::int64_t* poses, std::int64_t L, void* buffer);
};

GROUPCC_DECLARE(GroupCorrelateMaxKernels, group_correlate_max_kernels)

}  // namespace groupcc
