// decode_loss: acts [N, K], indices [N, K], W_dec [L, M], bias [M], target → loss [G], residual [N, M], with M = G·D.
#include "decode_loss.h"

#include "bindings.h"
#include "decode_tiles.h"

namespace groupcc {
namespace {

// The target is [N, M], or maps and taps with target 0.
void decode_loss(std::uintptr_t acts, std::uintptr_t indices, std::uintptr_t W_dec, std::uintptr_t bias,
                 std::uintptr_t target, std::uintptr_t maps, std::uintptr_t tap_index, std::uintptr_t tap_weight,
                 std::int64_t S, std::int64_t pixels, std::int64_t P, std::int64_t T,
                 std::uintptr_t loss, std::uintptr_t residual, std::int64_t N, std::int64_t K, std::int64_t L,
                 std::int64_t G, std::int64_t D, int dtype, int threads) {
    const std::int64_t M = G * D;
    const DecodeProblem problem{acts, indices, W_dec, bias, N, K, L, M, dtype, threads};
    with_acc(dtype, [&](auto acc) {
        using Acc = decltype(acc);
        const std::int64_t width = tile_columns(problem), tiles = (M + width - 1) / width;
        Scratch scratch;
        Acc* const squares = scratch.take<Acc>((tiles + G) * N);
        const Comparison with{at<void>(target), at<void>(maps), at<std::int64_t>(tap_index), at<void>(tap_weight),
                              S, pixels, P, T, N, D, at<void>(residual), squares};
        const auto compare = decode_loss_kernels().compare[dtype];
        decode_tiles<Acc>(problem, [&](const DecodeTile& tile) { compare(tile, with); });
        // Over the rows in double: thousands of squares summed in fp32 would lose digits.
        parallel_for(G, threads, [&](std::int64_t first, std::int64_t last, int) {
            for (std::int64_t g = first; g < last; ++g) {
                double sum = 0;
                for (std::int64_t m = g * D; m < (g + 1) * D; m = (m / width + 1) * width) {
                    const Acc* const part = squares + (m / width + g) * N;
                    for (std::int64_t n = 0; n < N; ++n) sum += part[n];
                }
                at<Acc>(loss)[g] = static_cast<Acc>(sum);
            }
        });
    });
}

}  // namespace

void bind_decode_loss(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("decode_loss", &decode_loss, "acts"_a, "indices"_a, "W_dec"_a, "bias"_a, "target"_a, "maps"_a,
          "tap_index"_a, "tap_weight"_a, "S"_a, "pixels"_a, "P"_a, "T"_a, "loss"_a, "residual"_a, "N"_a, "K"_a, "L"_a,
          "G"_a, "D"_a, "dtype"_a, "threads"_a, pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
