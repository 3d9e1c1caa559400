// decode_loss: acts [N, K], indices [N, K], W_dec [L, M], bias [M], target → loss [G], residual [N, M], with M = G·D.
#include "decode_loss.h"

#include <stdexcept>

#include "bindings.h"
#include "decode_tiles.h"

namespace groupcc {
namespace {

// target [N, G, D]; or, if there are taps, index and weight [G, P, T], maps [B, S, H, W, D] that they read, N = B·P.
Comparison comparison(const Tensor& target, const MaybeTensor& tap_index, const MaybeTensor& tap_weight, Dtype dtype,
                      Dtype sums, std::int64_t N, std::int64_t G, std::int64_t D) {
    Comparison with{};
    with.N = N;
    with.D = D;
    if (!tap_index) {
        with.target = elements<void>(target, "target", dtype, {N, G, D});
        return with;
    }
    const auto [B, S, H, W, channels] = shape_of<5>(target, "target");
    const auto [elements_of_group, P, T] = shape_of<3>(*tap_index, "tap_index");
    if (B * P != N || channels != D || elements_of_group != G || (S != 1 && S != G)) {
        throw std::invalid_argument("target: expected maps [B, S, H, W, D] and taps [G, P, T] with B·P = N, S = 1 or G");
    }
    with.maps = elements<void>(target, "target", dtype, {B, S, H, W, D});
    with.tap_index = elements<std::int64_t>(tap_index, "tap_index", Dtype::int64, {G, P, T});
    with.tap_weight = elements<void>(tap_weight, "tap_weight", sums, {G, P, T});
    with.S = S;
    with.pixels = H * W;
    with.P = P;
    with.T = T;
    return with;
}

void decode_loss(const Tensor& acts, const Tensor& indices, const Tensor& W_dec, const MaybeTensor& bias,
                 const Tensor& target, const MaybeTensor& tap_index, const MaybeTensor& tap_weight, const Tensor& loss,
                 const Tensor& residual, int threads) {
    const DecodeProblem problem = decode_problem(acts, indices, W_dec, bias, threads);
    const Dtype dtype = *W_dec.dtype, type = type_of_sums(problem.dtype);
    const std::int64_t N = problem.N, M = problem.M, G = W_dec.sizes[1], D = W_dec.sizes[2];
    Comparison with = comparison(target, tap_index, tap_weight, dtype, type, N, G, D);
    with.residual = elements<void>(residual, "residual", dtype, {N, G, D});
    void* const losses = elements<void>(loss, "loss", type, {G});
    with_acc(problem.dtype, [&](auto acc) {
        using Acc = decltype(acc);
        const std::int64_t width = tile_columns(problem), tiles = (M + width - 1) / width;
        Scratch scratch;
        Acc* const squares = scratch.take<Acc>((tiles + G) * N);
        with.squares = squares;
        const auto compare = decode_loss_kernels().compare[problem.dtype];
        decode_tiles<Acc>(problem, [&](const DecodeTile& tile) { compare(tile, with); });
        // Over the rows in double: thousands of squares summed in fp32 would lose digits.
        parallel_for(G, threads, [&](std::int64_t first, std::int64_t last, int) {
            for (std::int64_t g = first; g < last; ++g) {
                double sum = 0;
                for (std::int64_t m = g * D; m < (g + 1) * D; m = (m / width + 1) * width) {
                    const Acc* const part = squares + (m / width + g) * N;
                    for (std::int64_t n = 0; n < N; ++n) sum += part[n];
                }
                static_cast<Acc*>(losses)[g] = static_cast<Acc>(sum);
            }
        });
    });
}

}  // namespace

void bind_decode_loss(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("decode_loss", &decode_loss, "acts"_a, "indices"_a, "W_dec"_a, "bias"_a, "target"_a,
          "tap_index"_a, "tap_weight"_a, "loss"_a, "residual"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
