// group_decode: acts, indices, poses [N, K], W [L, G, D] → sums of translated blocks [N, G, D] and inner products with
// them, for group_decode_loss and group_encode_at.
//
// One range of columns after another, packed and narrow: a range of W stays in a core's L2 cache while all examples go
// over it, and of it a set of latents in L1 while those of a chunk do. A pose walks through a latent's blocks almost in
// order, which the CPU's own prefetching follows.
#pragma once

#include <cstdint>

#include "isa.h"

namespace groupcc {

// One latent of one example, in the pose that `pose` numbers.
template <class Acc>
struct Posed {
    Acc act;
    std::int32_t base, pose;  // its G blocks are base · G, …, base · G + G - 1 of a packed array [blocks, width]
    std::int32_t slot;        // which of the example's latents it is
};

// Packed blocks, and where a pose finds them: block g of a latent is offsets[pose · G + g] · 8 bytes after its first.
struct Blocks {
    const void* packed;
    const std::uint16_t* offsets;
    std::int64_t G, width;
};

struct GroupDecodeKernels {
    std::int64_t lanes[2];  // of float, double: `width` below is a multiple of them
    // Columns [0, columns) of `rows` rows `stride` apart into [rows, width] in the type of sums, zeros behind them.
    void (*pack[4])(const void* from, void* to, std::int64_t rows, std::int64_t stride, std::int64_t columns,
                    std::int64_t width);
    // And back, rounded.
    void (*unpack[4])(const void* from, void* to, std::int64_t rows, std::int64_t stride, std::int64_t columns,
                      std::int64_t width);
    // sums [G, width] += Σ_i act_i · translated block, in the order given. By float, double, as below.
    void (*add[2])(const void* posed, std::int64_t count, const Blocks& blocks, void* sums);
    // dots[slot_i] = Σ_g ⟨x [G, width], translated block⟩; acts are not read.
    void (*dot[2])(const void* posed, std::int64_t count, const Blocks& blocks, const void* x, void* dots);
    // residual = sums − target, G blocks of `columns` elements `stride` apart, rounded, and in place of sums [G, width]
    // as it is. Returns Σ of its squares; unless null, column_sums [width] += Σ_g of it. `far`: the residual may be
    // written past the cache, and is there for other threads after settle().
    double (*compare[4])(void* sums, const void* target, void* residual, std::int64_t G, std::int64_t stride,
                         std::int64_t columns, std::int64_t width, bool far, double* column_sums);
    void (*settle)();
    // column_sums [width] += Σ_g x [G, width].
    void (*sum_blocks[2])(const void* x, std::int64_t G, std::int64_t width, double* column_sums);
};

GROUPCC_DECLARE(GroupDecodeKernels, group_decode_kernels)

}  // namespace groupcc
