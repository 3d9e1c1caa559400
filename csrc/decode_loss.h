// decode_loss: sparse_decode's tiles against the target: residual = â − a [N, M], and sums of its squares.
#pragma once

#include <cstdint>

#include "isa.h"
#include "sparse_decode.h"

namespace groupcc {

// What a tile is compared with. Either target [N, M], or maps [B, S, pixels, D] gathered at taps [G, P, T].
struct Comparison {
    const void* target;  // null: gather
    const void* maps;
    const std::int64_t* tap_index;  // into a map's pixels
    const void* tap_weight;         // in the type of accumulation
    std::int64_t S, pixels, P, T;
    std::int64_t N, D;
    void* residual;  // [N, M]
    // Sums of squares of a row's part of one block, in the type of accumulation: at [(tile number + g) · N + row].
    void* squares;
};

struct DecodeLossKernels {
    void (*compare[4])(const DecodeTile& tile, const Comparison& with);  // by Dtype
};

GROUPCC_DECLARE(DecodeLossKernels, decode_loss_kernels)

}  // namespace groupcc
