// sparse_decode: acts [N, K], indices [N, K], W_dec [L, M], bias [M] → out [N, M], with M = G·D.
#include "sparse_decode.h"

#include "bindings.h"
#include "decode_tiles.h"
#include "latent_parts.h"

namespace groupcc {
namespace {

void sparse_decode(const Tensor& acts, const Tensor& indices, const Tensor& W_dec, const MaybeTensor& bias,
                   const Tensor& out, int threads) {
    const DecodeProblem problem = decode_problem(acts, indices, W_dec, bias, threads);
    void* const to = elements<void>(out, "out", *W_dec.dtype, {problem.N, W_dec.sizes[1], W_dec.sizes[2]});
    with_acc(problem.dtype, [&](auto acc) {
        const auto store = sparse_decode_kernels().store[problem.dtype];
        decode_tiles<decltype(acc)>(problem, [&](const DecodeTile& tile) { store(tile, to); });
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

void sparse_decode_backward(const Tensor& grad, const MaybeTensor& scale, const Tensor& acts, const Tensor& indices,
                            const Tensor& W_dec, const Tensor& d_acts, const Tensor& d_W_dec, const MaybeTensor& d_bias,
                            int threads) {
    const DecodeProblem p = decode_problem(acts, indices, W_dec, {}, threads);
    const Dtype dtype = *W_dec.dtype, sums = type_of_sums(p.dtype);
    const std::int64_t G = W_dec.sizes[1], D = W_dec.sizes[2];
    BackwardTile tile{};
    tile.grad = elements<void>(grad, "grad", dtype, {p.N, G, D});
    tile.scale = elements<void>(scale, "scale", sums, {G * D});
    tile.W_dec = p.W_dec;
    tile.d_W_dec = elements<void>(d_W_dec, "d_W_dec", dtype, {p.L, G, D});
    tile.d_bias = elements<void>(d_bias, "d_bias", sums, {G, D});
    tile.N = p.N;
    tile.M = p.M;
    void* const to = elements<void>(d_acts, "d_acts", sums, {p.N, p.K});
    with_acc(p.dtype, [&](auto acc) {
        using Acc = decltype(acc);
        backward<Acc>(tile, static_cast<const Acc*>(p.acts), p.indices, static_cast<Acc*>(to), p.K, p.L, p.dtype, threads);
    });
}

}  // namespace

void bind_sparse_decode(pybind11::module_& m) {
    using namespace pybind11::literals;
    const pybind11::call_guard<pybind11::gil_scoped_release> no_gil;
    m.def("sparse_decode", &sparse_decode, "acts"_a, "indices"_a, "W_dec"_a, "bias"_a, "out"_a, "threads"_a, no_gil);
    m.def("sparse_decode_backward", &sparse_decode_backward, "grad"_a, "scale"_a, "acts"_a, "indices"_a, "W_dec"_a,
          "d_acts"_a, "d_W_dec"_a, "d_bias"_a, "threads"_a, no_gil);
}

}  // namespace groupcc
