// The way of sparse_decode and decode_loss through their outputs, tile by tile, in threads.
#pragma once

#include <algorithm>

#include "parallel.h"
#include "scratch.h"
#include "sparse_decode.h"
#include "tensor.h"

namespace groupcc {

struct DecodeProblem {
    const void* acts;  // [N, K], in the type of accumulation
    const std::int64_t* indices;
    const void *W_dec, *bias;  // [L, M]; [M] or null
    std::int64_t N, K, L, M;
    int dtype, threads;
};

// acts [N, K], indices [N, K], W_dec [L, G, D] and bias [G, D] or none, as Python passes them.
inline DecodeProblem decode_problem(const Tensor& acts, const Tensor& indices, const Tensor& W_dec,
                                    const MaybeTensor& bias, int threads) {
    const int dtype = floating(W_dec, "W_dec");
    const auto [L, G, D] = shape_of<3>(W_dec, "W_dec");
    const auto [N, K] = shape_of<2>(acts, "acts");
    return {elements<void>(acts, "acts", type_of_sums(dtype), {N, K}),
            elements<std::int64_t>(indices, "indices", Dtype::int64, {N, K}),
            elements<void>(W_dec, "W_dec", *W_dec.dtype, {L, G, D}),
            elements<void>(bias, "bias", *W_dec.dtype, {G, D}),
            N, K, L, G * D, dtype, threads};
}

// By latent where W_dec's rows have this many readers each, or more: each is then read once, at the price of sums
// that live in L2 rather than in registers.
constexpr double readers_by_latent = 1.5;
constexpr std::int64_t cached_bytes_of_sums = std::int64_t{1} << 19;

inline bool sums_by_latent(const DecodeProblem& p) {
    return static_cast<double>(p.N) * p.K >= readers_by_latent * p.L && p.K > 0;
}

// At least half a kilobyte of each row of W_dec at a time.
inline std::int64_t tile_columns(const DecodeProblem& p) {
    const std::int64_t wide = sums_by_latent(p) && size_of(p.dtype) != 2 ? 128 : 256;
    return std::max<std::int64_t>(1, std::min(p.M, wide));
}

// after(tile) for every tile of sums; the tiles of one column range have one number and cover each row once. The sum
// over a row's latents is always taken in the same order, whatever the threads.
template <class Acc, class After>
void decode_tiles(const DecodeProblem& p, const After& after) {
    const SparseDecodeKernels& kernels = sparse_decode_kernels();
    Scratch scratch;
    DecodeTile common{};
    common.W_dec = p.W_dec;
    common.bias = p.bias;
    common.acts = p.acts;
    common.indices = p.indices;
    common.K = p.K;
    common.M = p.M;
    const bool by_latent = sums_by_latent(p);
    common.stride = tile_columns(p);
    const std::int64_t tiles = (p.M + common.stride - 1) / common.stride;
    if (p.N == 0 || tiles == 0) return;
    const std::int64_t cached_rows =
        by_latent ? std::max<std::int64_t>(1, cached_bytes_of_sums / (common.stride * sizeof(Acc))) : 32;
    // A chunk of rows is small enough for the cache, and for every thread to have one.
    std::int64_t chunks = (p.N + cached_rows - 1) / cached_rows;
    chunks = std::min(p.N, std::max(chunks, (p.threads + tiles - 1) / tiles));
    const std::int64_t chunk_rows = (p.N + chunks - 1) / chunks;
    chunks = (p.N + chunk_rows - 1) / chunk_rows;
    LatentMajor<Acc> index{};
    if (by_latent) {
        index = latent_major(static_cast<const Acc*>(common.acts), common.indices, p.N, p.K, p.L, chunk_rows, false,
                             p.threads, scratch);
        common.entries = index.entries;
    } else {
        check_indices(common.indices, p.N * p.K, p.L);
    }
    const auto decode = by_latent ? kernels.by_latent[p.dtype] : kernels.by_row[p.dtype];
    Acc* const sums = scratch.take<Acc>(p.threads * chunk_rows * common.stride);
    const auto one = [&](std::int64_t number, std::int64_t chunk, int thread) {
        DecodeTile tile = common;
        tile.number = number;
        tile.column = number * common.stride;
        tile.columns = std::min(common.stride, p.M - tile.column);
        tile.row = chunk * chunk_rows;
        tile.rows = std::min(chunk_rows, p.N - tile.row);
        tile.sums = sums + thread * chunk_rows * common.stride;
        if (by_latent) {
            tile.runs = index.runs + chunk * index.max_runs;
            tile.n_runs = index.n_runs[chunk];
        }
        decode(tile);
        after(tile);
    };
    if (by_latent || chunks < p.threads) {
        parallel_for(tiles * chunks, p.threads, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t i = begin; i < end; ++i) one(i / chunks, i % chunks, thread);
        });
    } else {
        // All threads go through the same columns at a time, so that W_dec's are in the cache they share.
        parallel_for(chunks, p.threads, [&](std::int64_t begin, std::int64_t end, int thread) {
            for (std::int64_t number = 0; number < tiles; ++number) {
                for (std::int64_t chunk = begin; chunk < end; ++chunk) one(number, chunk, thread);
            }
        });
    }
}

}  // namespace groupcc
