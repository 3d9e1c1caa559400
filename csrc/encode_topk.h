// encode_topk's screening and gradients: x [N, M], W [L, M] (latent-major), b [L] → the k largest of x·Wᵀ + b, from a bfloat16 product.
#pragma once

#include <cstdint>

#include "isa.h"
#include "latent_major.h"

namespace groupcc {

// Rounds rows of fp32 [R, M] to bfloat16. With `shift` [M], what is rounded is the row minus it. Each stats [R].
struct RoundArgs {
    const float* rows;
    const float* shift;    // may be null
    const float* against;  // [M], may be null: dot = row · against
    std::uint16_t* rounded;
    float* size;          // ‖row‖
    float* rounded_size;  // ‖rounded row‖
    float* error;         // ‖what is rounded − rounded row‖
    float* dot;           // where `against` is
    std::int64_t M;
};

// Row n's bounds, as `screen` in encode_topk.cpp derives them: of latent l, |pre − (z + h)| ≤
// per_error·error + per_size·size + per_z·|z| + per_h·|h| + floor.
struct BoundArgs {
    const std::uint16_t* z;  // [L] bfloat16
    const float *h, *size, *error;
    float per_size, per_error, per_z, per_h, floor;
    float* upper;   // [L]: z + h + bound
    float* maxima;  // [groups]: the largest z + h − bound of the latents l ≡ i (mod groups)
    std::int64_t L, groups;
};

// A latent-major index of the gradient of acts: each entry a row of x and what passes to it.
struct EncodeGradArgs {
    const void* x;  // [N, M]
    const Run* runs;
    const void* entries;
    void* d_W;  // [L, M]
    void* d_b;  // [L]
    std::int64_t M;
};

struct EncodeTopkKernels {
    // Runs [begin, end): d_W[latent] = Σ act·x[row], d_b[latent] = Σ act over their entries.
    void (*gradients[4])(const EncodeGradArgs& args, std::int64_t begin, std::int64_t end);  // by Dtype
    void (*round_rows)(const RoundArgs& args, std::int64_t begin, std::int64_t end);
    void (*bounds)(const BoundArgs& args);
    // Writes to `found` each l with not upper[l] < threshold, at most `room`; returns how many there are.
    std::int64_t (*at_least)(const float* upper, std::int64_t L, float threshold, std::int32_t* found,
                             std::int64_t room);
    // values[place[i]] = x[row[i]] · W[latent[i]] + b[latent[i]] for i in [begin, end), each product summed alike.
    void (*products)(const float* x, const float* W, const float* b, std::int64_t M, const std::int32_t* row,
                     const std::int32_t* latent, const std::int64_t* place, std::int64_t begin, std::int64_t end,
                     float* values);
};

GROUPCC_DECLARE(EncodeTopkKernels, encode_topk_kernels)

}  // namespace groupcc
