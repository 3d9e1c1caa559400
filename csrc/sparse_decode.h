// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
//
// Both directions go over tiles of columns while W_dec's rows stream by, latent after latent. Forward, a tile's sums are
// of as many rows as stay in a core's L2 cache. Backward, a tile of the gradient has all rows, and stays there only where
// they are few: 2000 of them in 1 MiB.
#pragma once

#include <cstdint>

#include "isa.h"
#include "latent_major.h"

namespace groupcc {

// Columns [column, column + columns) of rows [row, row + rows) of the output, being summed up.
struct DecodeTile {
    const void* W_dec;
    const void* bias;  // [M], may be null
    const Run* runs;   // by latent: the chunk's runs
    std::int64_t n_runs;
    const void* entries;
    const void* acts;  // by row: [N, K], in the type of sums
    const std::int64_t* indices;
    std::int64_t K, M, row, rows, column, columns;
    std::int64_t number;  // of the tile, by column
    void* sums;           // [rows, stride], in the type of accumulation
    std::int64_t stride;
};

// The same columns of the gradient (all rows) and of d_W_dec.
struct BackwardTile {
    const void* grad;   // [N, M]
    const void* scale;  // [M], multiplies grad; may be null. In the type of accumulation, as all below but W_dec
    const void* W_dec;
    const Run* runs;
    std::int64_t n_runs;
    const void* entries;
    std::int64_t N, M, column, columns;
    void* packed;  // [N, stride]: the scaled gradient
    std::int64_t stride;
    void* d_acts;  // by entry, added to
    void* d_W_dec;
    void* d_bias;  // [M]
};

struct SparseDecodeKernels {
    // By Dtype. Sums by latent: each row of W_dec is read once, the sums many times.
    void (*by_latent[4])(const DecodeTile& tile);
    // Sums by row: they stay in registers, a row of W_dec is read by every example that uses it.
    void (*by_row[4])(const DecodeTile& tile);
    // Rounds a tile's sums into out [N, M].
    void (*store[4])(const DecodeTile& tile, void* out);
    // Scales and packs the gradient; column sums into d_bias unless it is null.
    void (*pack[4])(const BackwardTile& tile);
    // d_W_dec of the runs' latents, d_acts of their entries.
    void (*backward[4])(const BackwardTile& tile);
};

GROUPCC_DECLARE(SparseDecodeKernels, sparse_decode_kernels)

}  // namespace groupcc
