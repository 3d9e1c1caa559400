// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
#include "sparse_decode.h"

#include "bindings.h"
#include "decode_tiles.h"
#include "latent_parts.h"

namespace groupcc {
namespace {

void sparse_decode(std::uintptr_t acts, std::uintptr_t indices, std::uintptr_t W_dec, std::uintptr_t bias,
                   std::uintptr_t out, std::int64_t N, std::int64_t K, std::int64_t L, std::int64_t M, int dtype,
                   int threads) {
    const DecodeProblem problem{acts, indices, W_dec, bias, N, K, L, M, dtype, threads};
    with_acc(dtype, [&](auto acc) {
        const auto store = sparse_decode_kernels().store[dtype];
        decode_tiles<decltype(acc)>(problem, [&](const DecodeTile& tile) { store(tile, at<void>(out)); });
    });
}

template <class Acc>
void backward(BackwardTile common, const Acc* acts, const std::int64_t* indices, Acc* d_acts, std::int64_t K,
              std::int64_t L, int dtype, int threads) {
    const SparseDecodeKernels& kernels = sparse_decode_kernels();
    const std::int64_t N = common.N, M = common.M;
    Scratch scratch;
    const LatentMajor<Acc> index =
        latent_major(acts, indices, N, K, L, std::max<std::int64_t>(N, 1), true, 1, scratch);
    const std::int64_t n_runs = index.chunks == 0 ? 0 : index.n_runs[0];
    common.stride = std::max<std::int64_t>(1, std::min<std::int64_t>(M, size_of(dtype) == 2 ? 256 : 128));
    common.entries = index.entries;
    // d_acts is summed over the tiles of a group, then over the groups: the same sums for any number of threads.
    const std::int64_t tiles = (M + common.stride - 1) / common.stride, groups = std::min<std::int64_t>(tiles, 16);
    const std::int64_t parts = groups == 0 ? 1 : (threads + groups - 1) / groups;
    Acc* const by_group = scratch.take<Acc>(groups * N * K);
    Acc* const packed = scratch.take<Acc>(threads * N * common.stride);
    parallel_for(groups * parts, threads, [&](std::int64_t first, std::int64_t last, int thread) {
        for (std::int64_t task = first; task < last; ++task) {
            const std::int64_t group = task / parts, part = task % parts;
            BackwardTile tile = common;
            if (n_runs > 0) {
                const std::int64_t begin = part_begin(index, part, parts), end = part_begin(index, part + 1, parts);
                tile.runs = index.runs + begin;
                tile.n_runs = end - begin;
            }
            tile.packed = packed + thread * N * common.stride;
            tile.d_acts = by_group + group * N * K;
            if (tile.n_runs > 0) {
                std::fill(by_group + group * N * K + tile.runs[0].begin,
                          by_group + group * N * K + tile.runs[tile.n_runs - 1].end, Acc{0});
            }
            if (part > 0) tile.d_bias = nullptr;
            for (std::int64_t i = tiles * group / groups; i < tiles * (group + 1) / groups; ++i) {
                tile.column = i * common.stride;
                tile.columns = std::min(common.stride, M - tile.column);
                kernels.pack[dtype](tile);
                kernels.backward[dtype](tile);
            }
        }
    });
    zero_unused(index, common.d_W_dec, M * size_of(dtype), L, threads);
    parallel_for(N * K, threads, [&](std::int64_t first, std::int64_t last, int) {
        for (std::int64_t i = first; i < last; ++i) {
            Acc sum = 0;
            for (std::int64_t group = 0; group < groups; ++group) sum += by_group[group * N * K + index.position[i]];
            d_acts[i] = sum;
        }
    });
}

void sparse_decode_backward(std::uintptr_t grad, std::uintptr_t scale, std::uintptr_t acts, std::uintptr_t indices,
                            std::uintptr_t W_dec, std::uintptr_t d_acts, std::uintptr_t d_W_dec, std::uintptr_t d_bias,
                            std::int64_t N, std::int64_t K, std::int64_t L, std::int64_t M, int dtype, int threads) {
    BackwardTile tile{};
    tile.grad = at<void>(grad);
    tile.scale = at<void>(scale);
    tile.W_dec = at<void>(W_dec);
    tile.d_W_dec = at<void>(d_W_dec);
    tile.d_bias = at<void>(d_bias);
    tile.N = N;
    tile.M = M;
    with_acc(dtype, [&](auto acc) {
        using Acc = decltype(acc);
        backward<Acc>(tile, at<Acc>(acts), at<std::int64_t>(indices), at<Acc>(d_acts), K, L, dtype, threads);
    });
}

}  // namespace

void bind_sparse_decode(pybind11::module_& m) {
    using namespace pybind11::literals;
    const pybind11::call_guard<pybind11::gil_scoped_release> no_gil;
    m.def("sparse_decode", &sparse_decode, "acts"_a, "indices"_a, "W_dec"_a, "bias"_a, "out"_a, "N"_a, "K"_a, "L"_a,
          "M"_a, "dtype"_a, "threads"_a, no_gil);
    m.def("sparse_decode_backward", &sparse_decode_backward, "grad"_a, "scale"_a, "acts"_a, "indices"_a, "W_dec"_a,
          "d_acts"_a, "d_W_dec"_a, "d_bias"_a, "N"_a, "K"_a, "L"_a, "M"_a, "dtype"_a, "threads"_a, no_gil);
}

}  // namespace groupcc
