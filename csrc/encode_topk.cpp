// encode_topk's screening and gradients: x [N, M], W [L, M] (latent-major), b [L] → the k largest of x·Wᵀ + b, from a bfloat16 product.
//
// Write c for any vector [M] (the rows' mean keeps the terms below small), d = fl(x − c), x̂ and ŵ for d and w rounded
// to bfloat16, ẑ for the bfloat16 product x̂·ŵ as it comes in, h = fl(c·w + b), and p for the pre-activation in fp32,
// fl(fl(x·w) + b), as `products` sums it. Exactly,
//
//   x·w + b = (c·w + b) + x̂·ŵ + x̂·(w − ŵ) + (x − c − x̂)·w,
//
// so by Cauchy–Schwarz, with u = 2⁻²⁴ and q = ‖x − c − x̂‖ ≤ ‖d − x̂‖ + u‖d‖ (d − x̂ and w − ŵ are exact in fp32),
//
//   |p − (ẑ + h)| ≤ ‖x̂‖·‖w − ŵ‖ + q·‖w‖                 what rounding to bfloat16 loses
//                 + 1.01 (M + 64) u ‖x̂‖·‖ŵ‖             ≥ M + 64 fp32 roundings in a row, in any order, in the product
//                 + 2⁻⁸|ẑ|                               the product rounded to bfloat16
//                 + (M/16 + 32) u (‖x‖ + ‖c‖)·‖w‖        the sums x·w and c·w of `dot`: 16 partial sums at least
//                 + 4u (|ẑ| + |h|) + …                    adding b, h, and the bound itself
//                 + M 2⁻¹²⁴ (1 + ‖x̂‖ + ‖w‖)             denormals, which the product may flush to zero.
//
// The terms are summed in fp32 and then widened by 1/1000, more than the roundings of norms and bounds come to for
// M ≤ 65,536. Entries whose upper bound falls below k lower bounds cannot be among the k largest p; p itself is computed
// for all others, and the choice is by p alone: what comes out is topk of p, to the bit. A NaN or infinity in w, or in
// ẑ, makes the upper bound NaN or infinite: not below anything; so does one in x, or a norm of x or c that overflows,
// for the whole row. Rows with too many candidates are left to the caller.
#include "encode_topk.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#include "bindings.h"
#include "latent_parts.h"
#include "parallel.h"
#include "scratch.h"

namespace groupcc {
namespace {

constexpr float u = 0x1p-24f, widened = 1.001f;
// A latent whose norm is larger is a candidate in every row: p could overflow where ẑ does not. Below it, and with a
// finite ‖x‖ < 2⁶⁴, no partial sum of x·w does.
constexpr float largest = 1e18f;
// So many rows share room for their candidates. Not a thread's rows: then the threads would say which rows find none.
constexpr std::int64_t rows_sharing = 16;

// stats [4, R]: of each row its size, its rounded size, the error of rounding, and its dot with `against`.
void encode_topk_round(const Tensor& rows, const MaybeTensor& shift, const MaybeTensor& against, const Tensor& rounded,
                       const Tensor& stats, int threads) {
    const auto [R, M] = shape_of<2>(rows, "rows");
    float* const s = elements<float>(stats, "stats", Dtype::float32, {4, R});
    const RoundArgs args{elements<float>(rows, "rows", Dtype::float32, {R, M}),
                         elements<float>(shift, "shift", Dtype::float32, {M}),
                         elements<float>(against, "against", Dtype::float32, {M}),
                         elements<std::uint16_t>(rounded, "rounded", Dtype::bfloat16, {R, M}),
                         s, s + R, s + 2 * R, s + 3 * R, M};
    const auto kernel = encode_topk_kernels().round_rows;
    parallel_for(R, threads, [&](std::int64_t begin, std::int64_t end, int) { kernel(args, begin, end); });
}

// At least the norm whose computed value is given: squares may have vanished, each below 2⁻¹²⁶.
float norm_bound(float computed, std::int64_t M) { return widened * computed + 0x1p-63f * std::sqrt(float(M)); }

// Falling pre-activation, NaN highest, then rising latent: as the reverse of one whole number's order. No value is −0,
// since sums begin at +0.
std::uint64_t order_key(float value, std::int32_t latent) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t up = value != value ? 0xffffffffu : (bits >> 31 ? ~bits : bits | 0x80000000u);
    return std::uint64_t(up) << 32 | std::uint32_t(~latent);
}

struct Choice {
    const std::uint16_t* z;
    const float *x, *W, *b;
    const float *latent_stats, *example_stats;  // [4, L], [4, N]: size, rounded size, error, dot
    float centre_size;
    float* acts;
    std::int64_t* indices;
    std::uint8_t* failed;
    std::int64_t n_examples, begin, n, L, M, k;  // rows [begin, begin + n) of n_examples
};

// The candidates of one block of rows.
struct Candidates {
    std::vector<std::int32_t> latent;
    std::vector<std::int64_t> start, end;  // row i's at [start[i], end[i])
};

struct Latents {
    std::vector<float> h, size, error;
};

void screen(const Choice& c, const Latents& latents, Candidates& found, std::int64_t average, int threads) {
    const EncodeTopkKernels kernels = encode_topk_kernels();
    const std::int64_t groups = std::min((std::max<std::int64_t>(4 * c.k, 128) + 63) / 64 * 64, (c.L + 63) / 64 * 64);
    const std::int64_t most = c.L / 4;
    const float product = 1.01f * float(c.M + 64) * u, sums = float(c.M / 16 + 32) * u;
    const float denormal = float(c.M) * 0x1p-124f;
    std::vector<float> scratch(static_cast<std::size_t>(threads) * (c.L + groups));
    parallel_for((c.n + rows_sharing - 1) / rows_sharing, threads, [&](std::int64_t first, std::int64_t last, int thread) {
        float* const upper = scratch.data() + thread * (c.L + groups);
        float* const maxima = upper + c.L;
        std::int64_t used = 0;
        for (std::int64_t i = first * rows_sharing; i < std::min(last * rows_sharing, c.n); ++i) {
            if (i % rows_sharing == 0) used = i * average;
            const std::int64_t end = std::min((i / rows_sharing + 1) * rows_sharing, c.n);
            const float* const stats = c.example_stats + c.begin + i;
            const float x_size = norm_bound(stats[0], c.M), rounded = norm_bound(stats[c.n_examples], c.M);
            const float lost = norm_bound(stats[2 * c.n_examples], c.M) + u * (rounded + stats[2 * c.n_examples]);
            found.start[i] = found.end[i] = used;
            c.failed[i] = 1;
            BoundArgs args{c.z + i * c.L, latents.h.data(), latents.size.data(), latents.error.data(), 0, 0, 0, 0, 0,
                           upper, maxima, c.L, groups};
            args.per_error = widened * rounded;
            args.per_size = widened * (lost + product * rounded + sums * (x_size + c.centre_size) + denormal);
            args.per_z = widened * (0x1p-8f + 4 * u);
            args.per_h = 8 * u;
            args.floor = denormal * (1 + rounded);
            kernels.bounds(args);
            std::nth_element(maxima, maxima + (c.k - 1), maxima + groups, std::greater<float>());
            const std::int64_t room = std::min(most, end * average - used);
            const std::int64_t count = kernels.at_least(upper, c.L, maxima[c.k - 1], &found.latent[used], room);
            if (count > room) continue;
            c.failed[i] = 0;
            found.end[i] = used += count;
        }
    });
}

// The pre-activations of all candidates, latent by latent, so that W is read once.
std::vector<float> pre_acts(const Choice& c, const Candidates& found, int threads) {
    const auto each = [&](const auto& visit) {
        for (std::int64_t i = 0; i < c.n; ++i) {
            for (std::int64_t p = found.start[i]; p < found.end[i]; ++p) visit(std::int32_t(i), found.latent[p], p);
        }
    };
    // Counting sort: end[l + 1] moves from the first entry of latent l to the one behind its last.
    std::vector<std::int64_t> end(c.L + 2, 0);
    each([&](std::int32_t, std::int32_t l, std::int64_t) { ++end[l + 2]; });
    for (std::int64_t l = 2; l < c.L + 2; ++l) end[l] += end[l - 1];
    const std::int64_t count = end[c.L + 1];
    std::vector<std::int32_t> row(count), latent(count);
    std::vector<std::int64_t> place(count);
    each([&](std::int32_t i, std::int32_t l, std::int64_t p) {
        const std::int64_t at = end[l + 1]++;
        row[at] = i;
        latent[at] = l;
        place[at] = p;
    });
    std::vector<float> values(found.latent.size());
    const auto products = encode_topk_kernels().products;
    parallel_for(count, threads, [&](std::int64_t first, std::int64_t last, int) {
        products(c.x + c.begin * c.M, c.W, c.b, c.M, row.data(), latent.data(), place.data(), first, last,
                 values.data());
    });
    return values;
}

void choose_largest(const Choice& c, const Candidates& found, const std::vector<float>& values, int threads) {
    std::vector<std::uint64_t> scratch(static_cast<std::size_t>(threads) * (c.L / 4));
    parallel_for(c.n, threads, [&](std::int64_t begin, std::int64_t end, int thread) {
        std::uint64_t* const keys = scratch.data() + thread * (c.L / 4);
        for (std::int64_t i = begin; i < end; ++i) {
            if (c.failed[i]) continue;
            const std::int64_t count = found.end[i] - found.start[i];
            for (std::int64_t j = 0; j < count; ++j) {
                keys[j] = order_key(values[found.start[i] + j], found.latent[found.start[i] + j]);
            }
            std::partial_sort(keys, keys + c.k, keys + count, std::greater<std::uint64_t>());
            for (std::int64_t j = 0; j < c.k; ++j) {
                const std::uint32_t up = std::uint32_t(keys[j] >> 32);
                const std::uint32_t bits = up >> 31 ? up & 0x7fffffffu : 0;
                float act;
                std::memcpy(&act, &bits, sizeof act);
                c.acts[i * c.k + j] = act;
                c.indices[i * c.k + j] = std::uint32_t(~std::uint32_t(keys[j]));
            }
        }
    });
}

// For the n rows of z, which are those from `begin` on of x, writes acts, indices [N, k] and failed [N]: 1 for the rows left
// to the caller. Returns how many of the n are left.
std::int64_t encode_topk_choose(const Tensor& z, const Tensor& x, const Tensor& W, const Tensor& b,
                                const Tensor& latent_stats, const Tensor& example_stats, float centre_size,
                                const Tensor& acts, const Tensor& indices, const Tensor& failed, std::int64_t begin,
                                int threads) {
    const auto [N, M] = shape_of<2>(x, "x");
    const auto [n, L] = shape_of<2>(z, "z");
    const std::int64_t k = shape_of<2>(acts, "acts")[1];
    if (k < 1 || k > L) throw std::invalid_argument("acts: expected from 1 to L columns");
    if (begin < 0 || n > N - begin) throw std::invalid_argument("begin: expected rows of z that there are in x");
    const Choice c{elements<std::uint16_t>(z, "z", Dtype::bfloat16, {n, L}),
                   elements<float>(x, "x", Dtype::float32, {N, M}),
                   elements<float>(W, "W", Dtype::float32, {L, M}),
                   elements<float>(b, "b", Dtype::float32, {L}),
                   elements<float>(latent_stats, "latent_stats", Dtype::float32, {4, L}),
                   elements<float>(example_stats, "example_stats", Dtype::float32, {4, N}),
                   norm_bound(centre_size, M),
                   elements<float>(acts, "acts", Dtype::float32, {N, k}) + begin * k,
                   elements<std::int64_t>(indices, "indices", Dtype::int64, {N, k}) + begin * k,
                   elements<std::uint8_t>(failed, "failed", Dtype::uint8, {N}) + begin,
                   N, begin, n, L, M, k};
    Latents latents{std::vector<float>(L), std::vector<float>(L), std::vector<float>(L)};
    for (std::int64_t l = 0; l < L; ++l) {
        latents.h[l] = c.latent_stats[3 * L + l] + c.b[l];
        const float norm = norm_bound(c.latent_stats[l], M);
        latents.size[l] = norm < largest ? norm : std::numeric_limits<float>::infinity();
        latents.error[l] = norm_bound(c.latent_stats[2 * L + l], M);
    }
    const std::int64_t average = std::max<std::int64_t>(L / 16, 2 * k);
    Candidates found{std::vector<std::int32_t>(n * average), std::vector<std::int64_t>(n), std::vector<std::int64_t>(n)};
    screen(c, latents, found, average, threads);
    choose_largest(c, found, pre_acts(c, found, threads), threads);
    return std::count(c.failed, c.failed + n, std::uint8_t{1});
}

// grad [N, K] in the type of accumulation, 0 where no gradient passes: such entries are left out.
void encode_topk_backward(const Tensor& grad, const Tensor& indices, const Tensor& x, const Tensor& d_W,
                          const Tensor& d_b, int threads) {
    const int dtype = floating(x, "x");
    const auto [N, K] = shape_of<2>(grad, "grad");
    const auto shape = shape_of<2>(d_W, "d_W");
    const std::int64_t L = shape[0], M = shape[1];
    const void* const grads = elements<void>(grad, "grad", type_of_sums(dtype), {N, K});
    const auto* const chosen = elements<std::int64_t>(indices, "indices", Dtype::int64, {N, K});
    const void* const rows = elements<void>(x, "x", *x.dtype, {N, M});
    void* const to_W = elements<void>(d_W, "d_W", *x.dtype, {L, M});
    void* const to_b = elements<void>(d_b, "d_b", *x.dtype, {L});
    const std::int64_t n_grads = N, n_active = K;
    with_acc(dtype, [&](auto acc) {
        using Acc = decltype(acc);
        Scratch scratch;
        const LatentMajor<Acc> index = latent_major(static_cast<const Acc*>(grads), chosen, n_grads, n_active, L,
                                                    std::max<std::int64_t>(n_grads, 1), false, 1, scratch);
        const EncodeGradArgs args{rows, index.runs, index.entries, to_W, to_b, M};
        const auto kernel = encode_topk_kernels().gradients[dtype];
        each_thread(threads, [&](int t) { kernel(args, part_begin(index, t, threads), part_begin(index, t + 1, threads)); });
        zero_unused(index, args.d_W, M * size_of(dtype), L, threads);
        zero_unused(index, args.d_b, size_of(dtype), L, 1);
    });
}

}  // namespace

void bind_encode_topk(pybind11::module_& m) {
    using namespace pybind11::literals;
    const pybind11::call_guard<pybind11::gil_scoped_release> released;
    m.def("encode_topk_round", &encode_topk_round, "rows"_a, "shift"_a, "against"_a, "rounded"_a, "stats"_a,
          "threads"_a, released);
    m.def("encode_topk_choose", &encode_topk_choose, "z"_a, "x"_a, "W"_a, "b"_a, "latent_stats"_a, "example_stats"_a,
          "centre_size"_a, "acts"_a, "indices"_a, "failed"_a, "begin"_a, "threads"_a, released);
    m.def("encode_topk_backward", &encode_topk_backward, "grad"_a, "indices"_a, "x"_a, "d_W"_a, "d_b"_a, "threads"_a,
          released);
}

}  // namespace groupcc
