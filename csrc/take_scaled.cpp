// take_scaled: rows of x times a number, read and written once.
#include <stdexcept>
#include <string>

#include "bindings.h"
#include "parallel.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace groupcc {
namespace {

constexpr std::int64_t far_bytes = std::int64_t{1} << 24;  // an output of so much is not in the cache when read again

void scale(const float* from, float* to, std::int64_t count, float factor, bool far) {
    std::int64_t i = 0;
#if defined(__SSE2__)
    // Past the cache, so that a line need not be read before it is written.
    if (far && reinterpret_cast<std::uintptr_t>(to) % 16 == 0) {
        const __m128 factors = _mm_set1_ps(factor);
        for (; i + 4 <= count; i += 4) _mm_stream_ps(to + i, _mm_mul_ps(_mm_loadu_ps(from + i), factors));
    }
#else
    (void)far;
#endif
    for (; i < count; ++i) to[i] = from[i] * factor;
}

// x [M, width], indices [N] → out [N, width].
void take_scaled(const Tensor& x, const Tensor& indices, const Tensor& out, double factor, int threads) {
    const std::int64_t M = shape_of<2>(x, "x")[0], width = x.sizes[1], N = shape_of<1>(indices, "indices")[0];
    const float* const from = elements<float>(x, "x", Dtype::float32, {M, width});
    const std::int64_t* const rows = elements<std::int64_t>(indices, "indices", Dtype::int64, {N});
    float* const to = elements<float>(out, "out", Dtype::float32, {N, width});
    for (std::int64_t n = 0; n < N; ++n) {
        if (rows[n] >= 0 && rows[n] < M) continue;
        throw std::out_of_range("indices: expected 0 to M - 1 = " + std::to_string(M - 1) + "; got " +
                                std::to_string(rows[n]) + ". Pass examples that there are.");
    }
    const bool far = N * width * static_cast<std::int64_t>(sizeof(float)) >= far_bytes;
    parallel_for(N, threads, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t n = begin; n < end; ++n) {
            scale(from + rows[n] * width, to + n * width, width, static_cast<float>(factor), far);
        }
#if defined(__SSE2__)
        _mm_sfence();
#endif
    });
}

}  // namespace

void bind_take_scaled(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("take_scaled", &take_scaled, "x"_a, "indices"_a, "out"_a, "factor"_a, "threads"_a,
          pybind11::call_guard<pybind11::gil_scoped_release>());
}

}  // namespace groupcc
